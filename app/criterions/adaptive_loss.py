"""Cross-entropy under an adaptive softmax, without the scores of clusters that no target is in."""

from dataclasses import dataclass

from app.data.batch import Batch
from app.errors import ConfigError
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.adaptive_softmax import AdaptiveSoftmax
from app.modules.token_loss import token_logs


@dataclass
class AdaptiveLossConfig:
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens
    ignore_pad_in_tails: bool  # fairseq's fault, for those who must repeat its losses: see AdaptiveLoss


class AdaptiveLoss(Criterion):
    """Minus the log-probability of every target token, summed (Grave et al., 2017).

    The sum equals that of `cross_entropy`, which computes every word's score. fairseq's is smaller: it looks for the
    padding's number inside the tail clusters too, where words are counted from the cluster's first, and so leaves out
    a part of the loss of one real word of each cluster. `ignore_pad_in_tails=true` repeats that.
    """

    needs_adaptive_softmax = True

    def __init__(self, cfg: AdaptiveLossConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        softmax = adaptive_softmax(model)
        real = batch.target.flatten().ne(self.pad).nonzero().squeeze(1)
        features, target = model(batch).flatten(0, 1)[real], batch.target.flatten()[real]
        loss = softmax.nll(features, target, self.pad if self.cfg.ignore_pad_in_tails else None).sum()
        logs = token_logs(loss, loss, batch.num_tokens, len(batch))
        return Loss(loss, len(batch) if self.cfg.sentence_avg else batch.num_tokens, logs)


def adaptive_softmax(model: Model) -> AdaptiveSoftmax:
    """The one that `model.project` applies. Raises ConfigError where the model has none."""
    found = next((module for module in model.modules() if isinstance(module, AdaptiveSoftmax)), None)
    if found is None:
        raise ConfigError(["criterion=adaptive_loss: this model has no adaptive softmax; set adaptive_softmax_cutoff"])
    return found
