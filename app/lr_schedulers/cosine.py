"""Cosine annealing, with warm restarts if wanted."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least, positive


@dataclass
class CosineConfig:
    warmup_updates: int  # updates of linear warm-up
    warmup_init_lr: float  # learning rate at update 0
    min_lr: float  # learning rate at the end of a period
    lr_period_updates: int  # updates of the first period; 0: from the end of warm-up to `max_update`
    t_mult: float  # each period is this much longer than the one before
    lr_shrink: float  # both ends of the cosine are multiplied by this after each period
    max_update: int  # where the run ends; the end of the only period when `lr_period_updates` is 0

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_updates", "warmup_init_lr", "min_lr", "lr_period_updates", "max_update")
        yield from at_least(self, 1, "t_mult")
        yield from positive(self, "lr_shrink")
        if not self.lr_period_updates and self.max_update <= self.warmup_updates:
            yield (
                f"lr_period_updates=0: the period would end at max_update={self.max_update}, which must then lie "
                f"beyond warmup_updates={self.warmup_updates}; set one of them"
            )


class Cosine(LRScheduler):
    """Loshchilov and Hutter (2017), eq. 5; period i lasts `t_mult ** i` times as long as the first."""

    def __init__(self, cfg: CosineConfig, optimizer: torch.optim.Optimizer):
        self.warmup = cfg.warmup_updates
        self.period = cfg.lr_period_updates or cfg.max_update - cfg.warmup_updates
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        init = self.cfg.warmup_init_lr
        if num_updates < self.warmup:
            return float(init + num_updates * (self.base_lr - init) / self.warmup)
        number, share = self._place(num_updates - self.warmup)
        shrink = self.cfg.lr_shrink**number
        low, high = min(self.cfg.min_lr, self.base_lr) * shrink, self.base_lr * shrink
        return float(low + 0.5 * (high - low) * (1 + math.cos(math.pi * share)))

    def _place(self, updates: int) -> tuple[int, float]:
        """Which period this is, from 0, and what share of it has passed."""
        ratio = self.cfg.t_mult
        if ratio == 1:
            number, passed = divmod(updates, self.period)
            return number, passed / self.period
        number = math.floor(math.log(1 + updates / self.period * (ratio - 1), ratio))
        start = (ratio**number - 1) / (ratio - 1) * self.period
        return number, (updates - start) / (ratio**number * self.period)
