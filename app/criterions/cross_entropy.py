"""Cross-entropy of the target tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import token_logs, token_loss
from app.ranges import at_least


@dataclass
class CrossEntropyConfig:
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens
    z_loss: float  # weight of the squared logarithm of the softmax's normaliser; 0: none; not in fairseq

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "z_loss")


class CrossEntropy(Criterion):
    """Minus the log-probability of every target token, summed."""

    def __init__(self, cfg: CrossEntropyConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        sums = token_loss(model, model(batch), batch.target, self.pad, z_loss=self.cfg.z_loss)
        logs = token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch))
        return Loss(sums.loss, len(batch) if self.cfg.sentence_avg else batch.num_tokens, logs)
