"""Label-smoothed cross-entropy, and attention that is taught to follow given word alignments."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import Projects, token_logs, token_loss
from app.ranges import at_least, probability


@dataclass
class LabelSmoothedCrossEntropyWithAlignmentConfig:
    label_smoothing: float  # probability that is spread over the words that are not the target
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens
    alignment_lambda: float  # weight of the alignment's loss

    def check(self) -> Iterator[str]:
        yield from probability(self, "label_smoothing")
        yield from at_least(self, 0, "alignment_lambda")


class Aligns(Projects, Protocol):
    """A model whose attention to the source can be taught."""

    def features_and_attention(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features [B, T, D] and attention to the source [B, T, S], whose rows add up to 1, in one pass."""


class Aligned(Protocol):
    """What a batch has beside `Batch`'s fields where alignments are known."""

    alignments: Tensor  # [N, 2]: a source position, and the target position for it, counted through the rows of [B, T]
    align_weights: Tensor  # [N]: one over the number of alignments of that target position


class LabelSmoothedCrossEntropyWithAlignment(Criterion):
    """Garg et al. (2019, sec. 4.3). A batch without alignments has no alignment loss. `loss` is logged without it."""

    needs = "features_and_attention"

    def __init__(self, cfg: LabelSmoothedCrossEntropyWithAlignmentConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        features, attention = cast(Aligns, model).features_and_attention(batch)
        sums = token_loss(model, features, batch.target, self.pad, self.cfg.label_smoothing)
        loss, logs = sums.loss, token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch))
        if getattr(batch, "alignments", None) is not None:
            alignment_loss = negative_log_attention(attention, cast(Aligned, batch))
            loss = loss + self.cfg.alignment_lambda * alignment_loss
            logs["alignment_loss"] = alignment_loss.detach()
        return Loss(loss, len(batch) if self.cfg.sentence_avg else batch.num_tokens, logs)


def negative_log_attention(attention: Tensor, batch: Aligned) -> Tensor:
    """attention [B, T, S] -> minus the weighted logarithm of what aligned words pay to each other, summed."""
    source, target = batch.alignments.unbind(1)
    return -(attention.flatten(0, 1)[target, source].log() * batch.align_weights).sum()
