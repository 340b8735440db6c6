"""The class of a sentence, or a number for it."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.errors import ConfigError
from app.interfaces import Classifies, Criterion, Loss, Model, Task


@dataclass
class SentencePredictionConfig:
    classification_head_name: str  # which of the model's heads answers
    regression_target: bool  # the target is a number rather than a class
    report_f1_and_mcc: bool  # measure F1 and Matthews' correlation too, of the second of two classes

    @property
    def reported(self) -> dict[str, str]:
        """What is measured beside the loss, and which direction is better."""
        if self.regression_target:
            return {"pearson": "max"}
        return {"accuracy": "max"} | (dict.fromkeys(("f1", "mcc"), "max") if self.report_f1_and_mcc else {})


class SentencePrediction(Criterion):
    """Cross-entropy of the class, or the squared error of the number, summed over sentences.

    `batch.target` holds a class or a number for each sentence, [B] or [B, 1]. A regression reports Pearson's
    correlation. Spearman's, which fairseq has too, is no function of sums, so that no worker could know it.
    """

    needs = "classify"
    predicts = "classes"

    def __init__(self, cfg: SentencePredictionConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        if cfg.report_f1_and_mcc and task.classification_heads[cfg.classification_head_name] != 2:
            classes = task.classification_heads[cfg.classification_head_name]
            raise ConfigError(
                [f"criterion.report_f1_and_mcc=true: is for two classes, and there are {classes}; unset it"]
            )

    def forward(self, model: Model, batch: Batch) -> Loss:
        scores = cast(Classifies, model).classify(batch, self.cfg.classification_head_name).float()
        target = batch.target.flatten()
        logs: dict[str, Tensor | float] = {"ntokens": batch.num_tokens, "nsentences": target.numel()}
        if self.cfg.regression_target:
            loss = F.mse_loss(scores.flatten(), target.float(), reduction="sum")
            logs |= correlation_sums(scores.detach().flatten().double(), target.double())
        else:
            loss = F.cross_entropy(scores, target, reduction="sum")
            guess = scores.argmax(1)
            logs |= {"n_correct": (guess == target).sum(), "total": target.numel()}
            if self.cfg.report_f1_and_mcc:
                logs |= {f"n_{a}{b}": ((guess == a) & (target == b)).sum() for a in (0, 1) for b in (0, 1)}
        return Loss(loss, target.numel(), {**logs, "loss": loss.detach()})


def correlation_sums(x: Tensor, y: Tensor) -> dict[str, Tensor | float]:
    """What Pearson's correlation of x [B] and y [B] is made of."""
    products = {"sum_x": x, "sum_y": y, "sum_xx": x * x, "sum_yy": y * y, "sum_xy": x * y}
    return {"total": float(x.numel()), **{name: each.sum() for name, each in products.items()}}
