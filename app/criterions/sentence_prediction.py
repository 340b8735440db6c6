"""The class of a sentence, or a number for it."""

from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task


@dataclass
class SentencePredictionConfig:
    classification_head_name: str  # which of the model's heads answers
    regression_target: bool  # the target is a number rather than a class


class Classifies(Protocol):
    """A model with classification heads."""

    def classify(self, batch: Batch, head: str) -> Tensor:
        """[B, C]: scores of the classes; for a regression C = 1."""


class SentencePrediction(Criterion):
    """Cross-entropy of the class, or the squared error of the number, summed over sentences.

    `batch.target` holds a class or a number for each sentence, [B] or [B, 1].
    """

    needs = "classify"
    predicts = "classes"

    def __init__(self, cfg: SentencePredictionConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg

    def forward(self, model: Model, batch: Batch) -> Loss:
        scores = cast(Classifies, model).classify(batch, self.cfg.classification_head_name).float()
        target = batch.target.flatten()
        logs: dict[str, Tensor | float] = {"ntokens": batch.num_tokens, "nsentences": target.numel()}
        if self.cfg.regression_target:
            loss = F.mse_loss(scores.flatten(), target.float(), reduction="sum")
        else:
            loss = F.cross_entropy(scores, target, reduction="sum")
            logs |= {"n_correct": (scores.argmax(1) == target).sum(), "total": target.numel()}
        return Loss(loss, target.numel(), {**logs, "loss": loss.detach()})
