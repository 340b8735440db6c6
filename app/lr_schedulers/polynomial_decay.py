"""Linear warm-up, then decay to an end rate with a power of what is left."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least, positive


@dataclass
class PolynomialDecayConfig:
    warmup_updates: int  # updates of linear warm-up from 0
    total_num_update: int  # update at which the end rate is reached
    end_learning_rate: float  # rate from then on
    power: float  # 1: linear decay

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_updates", "end_learning_rate", "power")
        yield from positive(self, "total_num_update")
        if 0 < self.total_num_update < self.warmup_updates:
            yield f"total_num_update={self.total_num_update}: must not lie before warmup_updates={self.warmup_updates}"


class PolynomialDecay(LRScheduler):
    """As in BERT's and RoBERTa's training.

    fairseq sets the peak rate again for the first update of every epoch; this one does not.
    """

    def __init__(self, cfg: PolynomialDecayConfig, optimizer: torch.optim.Optimizer):
        self.warmup, self.total = cfg.warmup_updates, cfg.total_num_update
        self.end, self.power = cfg.end_learning_rate, cfg.power
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        if num_updates <= self.warmup and self.warmup:
            return self.base_lr * num_updates / self.warmup
        if num_updates >= self.total:
            return self.end
        left = 1 - (num_updates - self.warmup) / (self.total - self.warmup)
        return float(self.end + (self.base_lr - self.end) * left**self.power)
