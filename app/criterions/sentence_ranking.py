"""Which of several candidates is the right one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task


@dataclass
class SentenceRankingConfig:
    ranking_head_name: str  # which of the model's heads scores a candidate


class Scores(Protocol):
    """A model with classification heads."""

    def classify(self, batch: Batch, head: str) -> Tensor:
        """[B, 1]: a score for each row."""


class Candidates(Protocol):
    """What a batch has beside `Batch`'s fields."""

    candidates: Sequence[Batch]  # the first candidates of all questions, the second ones, ...


class SentenceRanking(Criterion):
    """Cross-entropy of the right candidate under a softmax over all candidates' scores, summed over questions.

    `batch.target` [B] holds the right candidate's number.
    """

    needs = "classify"
    predicts = "candidates"

    def __init__(self, cfg: SentenceRankingConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg

    def forward(self, model: Model, batch: Batch) -> Loss:
        classify, head = cast(Scores, model).classify, self.cfg.ranking_head_name
        scores = torch.cat([classify(each, head) for each in cast(Candidates, batch).candidates], dim=1).float()
        target = batch.target.flatten()
        loss = F.cross_entropy(scores, target, reduction="sum")
        logs: dict[str, Tensor | float] = {"loss": loss.detach(), "ntokens": batch.num_tokens}
        logs |= {"nsentences": target.numel(), "n_correct": (scores.argmax(1) == target).sum(), "total": target.numel()}
        return Loss(loss, target.numel(), logs)
