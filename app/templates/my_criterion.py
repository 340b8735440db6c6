"""MyCriterion: say here what the loss is, and where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import token_logs, token_loss
from app.ranges import probability


@dataclass
class MyCriterionConfig:
    label_smoothing: float  # probability that is spread over the words that are not the target

    def check(self) -> Iterator[str]:
        yield from probability(self, "label_smoothing")


class MyCriterion(Criterion):
    """Label-smoothed cross-entropy, summed over target tokens."""

    def __init__(self, cfg: MyCriterionConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        sums = token_loss(model, model(batch), batch.target, self.pad, self.cfg.label_smoothing)
        return Loss(sums.loss, batch.num_tokens, token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch)))
