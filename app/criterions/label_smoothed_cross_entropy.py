"""Cross-entropy whose target shares a little of its probability with all words (Szegedy et al., 2016, sec. 7)."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import token_logs, token_loss
from app.ranges import at_least, probability


@dataclass
class LabelSmoothedCrossEntropyConfig:
    label_smoothing: float  # probability that is spread over the words that are not the target
    ignore_prefix_size: int  # target positions at the start of each sentence that do not count
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens
    report_accuracy: bool  # log how many tokens the model guesses right
    z_loss: float  # weight of the squared logarithm of the softmax's normaliser; 0: none; not in fairseq

    def check(self) -> Iterator[str]:
        yield from probability(self, "label_smoothing")
        yield from at_least(self, 0, "ignore_prefix_size", "z_loss")


class LabelSmoothedCrossEntropy(Criterion):
    """fairseq's form: `label_smoothing` is spread over the V - 1 other words."""

    def __init__(self, cfg: LabelSmoothedCrossEntropyConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        prefix = self.cfg.ignore_prefix_size
        features, target = model(batch)[:, prefix:], batch.target[:, prefix:]
        options = self.cfg.label_smoothing, self.cfg.report_accuracy, self.cfg.z_loss
        sums = token_loss(model, features, target, self.pad, *options)
        logs = token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch))
        if self.cfg.report_accuracy:
            logs |= {"n_correct": sums.correct, "total": sums.num_tokens}
        return Loss(sums.loss, len(batch) if self.cfg.sentence_avg else batch.num_tokens, logs)
