"""Label-smoothed cross-entropy of two passes with different dropout, which are drawn towards each other."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import TokenLoss, lprobs_loss, token_logs, token_loss
from app.ranges import at_least, probability


@dataclass
class LabelSmoothedCrossEntropyWithRDropConfig:
    label_smoothing: float  # probability that is spread over the words that are not the target
    ignore_prefix_size: int  # target positions at the start of each sentence that do not count
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens
    report_accuracy: bool  # log how many tokens the model guesses right, over both passes
    rdrop_alpha: float  # weight of the divergence between the passes; 0: one pass, and no divergence

    def check(self) -> Iterator[str]:
        yield from probability(self, "label_smoothing")
        yield from at_least(self, 0, "ignore_prefix_size", "rdrop_alpha")


class LabelSmoothedCrossEntropyWithRDrop(Criterion):
    """R-Drop (Liang et al., 2021, eq. 3): the losses of two passes plus the mean of both KL divergences, as fairseq.

    Validation makes one pass, because without dropout two are the same; and `nll_loss` is logged for one pass, so that
    perplexity is the model's. fairseq logs the double of both (and so the square of the perplexity).
    """

    def __init__(self, cfg: LabelSmoothedCrossEntropyWithRDropConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        if self.cfg.rdrop_alpha > 0 and model.training:
            sums, divergence = self._two_passes(model, batch)
        else:
            features, target = self._counted(model(batch)), self._counted(batch.target)
            sums = token_loss(model, features, target, self.pad, self.cfg.label_smoothing, self.cfg.report_accuracy)
            divergence = None
        logs = token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch))
        if divergence is not None:
            sums = sums._replace(loss=sums.loss + self.cfg.rdrop_alpha * divergence)
            more = {"loss": sums.loss.detach(), "nll_loss": sums.nll / 2, "rdrop_kl_loss": divergence.detach()}
            logs |= more
        if self.cfg.report_accuracy:
            logs |= {"n_correct": sums.correct, "total": sums.num_tokens}
        return Loss(sums.loss, len(batch) if self.cfg.sentence_avg else batch.num_tokens, logs)

    def _two_passes(self, model: Model, batch: Batch) -> tuple[TokenLoss, Tensor]:
        """The sums of both passes, and the mean of the divergences either way, summed over target tokens."""
        target = self._counted(batch.target).flatten()
        real = target.ne(self.pad).nonzero().squeeze(1)
        p, q = (
            model.project(self._counted(model(batch)).flatten(0, 1)[real]).log_softmax(-1, dtype=torch.float32)
            for _ in range(2)
        )  # [N, V]
        gold = target[real].repeat(2)
        sums = lprobs_loss(torch.cat([p, q]), gold, self.cfg.label_smoothing, self.cfg.report_accuracy)
        both_ways = F.kl_div(p, q, reduction="sum", log_target=True) + F.kl_div(q, p, reduction="sum", log_target=True)
        return sums, both_ways / 2

    def _counted(self, x: Tensor) -> Tensor:
        """[B, T, ...] without the positions that do not count."""
        return x[:, self.cfg.ignore_prefix_size :]
