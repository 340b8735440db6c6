"""Cross-entropy of the target tokens."""

from dataclasses import dataclass

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import token_logs, token_loss


@dataclass
class CrossEntropyConfig:
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens


class CrossEntropy(Criterion):
    """Minus the log-probability of every target token, summed."""

    def __init__(self, cfg: CrossEntropyConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        sums = token_loss(model, model(batch), batch.target, self.pad)
        logs = token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch))
        return Loss(sums.loss, len(batch) if self.cfg.sentence_avg else batch.num_tokens, logs)
