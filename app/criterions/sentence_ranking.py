"""Which of several candidates is the right one."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.interfaces import Classifies, Criterion, Loss, Model, Task


@dataclass
class SentenceRankingConfig:
    ranking_head_name: str  # which of the model's heads scores a candidate

    @property
    def reported(self) -> dict[str, str]:
        """What is measured beside the loss, and which direction is better."""
        return {"accuracy": "max"}


class SentenceRanking(Criterion):
    """Cross-entropy of the right candidate under a softmax over all candidates' scores, summed over questions.

    `batch.target` [B] holds the right candidate's number. The batch has the rows of its K candidates for each of the B
    questions, side by side; the head gives one score for a row.
    """

    needs = "classify"
    predicts = "candidates"

    def __init__(self, cfg: SentenceRankingConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg

    def forward(self, model: Model, batch: Batch) -> Loss:
        target = batch.target.flatten()
        scores = cast(Classifies, model).classify(batch, self.cfg.ranking_head_name)  # [B * K, 1]
        scores = scores.float().view(target.numel(), -1)
        loss = F.cross_entropy(scores, target, reduction="sum")
        logs: dict[str, Tensor | float] = {"loss": loss.detach(), "ntokens": batch.num_tokens}
        logs |= {"nsentences": target.numel(), "n_correct": (scores.argmax(1) == target).sum(), "total": target.numel()}
        return Loss(loss, target.numel(), logs)
