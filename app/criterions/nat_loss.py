"""The loss of models that refine drafts: that of each thing they predict, weighted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Prediction, RefiningModel, Task
from app.modules.token_loss import projected_loss, token_logs
from app.ranges import probability


@dataclass
class NatLossConfig:
    label_smoothing: float  # share of each target that is spread over all classes, where a model names no other

    def check(self) -> Iterator[str]:
        yield from probability(self, "label_smoothing")


class NatLoss(Criterion):
    """A mean over its positions for each prediction, times its factor; their sum, times the batch's target tokens.

    With one batch the gradient is that of fairseq, which adds means and divides by nothing. With several, fairseq
    counts a batch of five tokens as much as one of five thousand; here each counts by its tokens.
    """

    needs = "predictions"
    refines = True

    def __init__(self, cfg: NatLossConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg

    def forward(self, model: Model, batch: Batch) -> Loss:
        value = nll = torch.zeros((), device=batch.target.device)
        parts: dict[str, Tensor | float] = {}
        for name, prediction in cast(RefiningModel, model).predictions(batch).items():
            loss, part_nll = self.means(prediction)
            value = value + prediction.factor * loss
            nll = nll + part_nll if prediction.is_word else nll
            parts[f"{name}_loss"] = loss.detach() * batch.num_tokens
        value, nll = value * batch.num_tokens, nll.detach() * batch.num_tokens
        return Loss(value, batch.num_tokens, token_logs(value, nll, batch.num_tokens, len(batch)) | parts)

    def means(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """The smoothed loss and the loss without smoothing, means over the positions; 0 where there are none.

        fairseq's smoothing spreads its share over all V classes, the target too: `projected_loss` over the others.
        """
        own, target = prediction.label_smoothing, prediction.target
        smoothing = self.cfg.label_smoothing if own is None else own
        count, classes = max(len(target), 1), len(prediction.weight)
        if target.dim() == 1:
            others = smoothing * (classes - 1) / classes
            loss, nll, _ = projected_loss(prediction.features, prediction.weight, None, target, others)
            return loss / count, nll / count
        lprobs = F.linear(prediction.features, prediction.weight).log_softmax(-1, dtype=torch.float32)
        nll = F.kl_div(lprobs, target, reduction="sum")
        return ((1 - smoothing) * nll - smoothing / classes * lprobs.sum()) / count, nll.detach() / count
