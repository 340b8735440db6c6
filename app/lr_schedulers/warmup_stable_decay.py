"""Warm-up, a constant rate for most of the run, then a short decay."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least, one_of


@dataclass
class WarmupStableDecayConfig:
    warmup_updates: int  # updates of linear warm-up from 0
    decay_updates: int  # updates of decay at the end of the run
    max_update: int  # where the run ends and the decay with it
    min_lr: float  # learning rate at the end
    decay: str  # shape of the decay: linear, or 1-sqrt, which falls faster at first

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_updates", "decay_updates", "min_lr")
        yield from one_of(self, "decay", "linear", "1-sqrt")
        if self.max_update < self.warmup_updates + self.decay_updates:
            yield (
                f"max_update={self.max_update}: must be at least warmup_updates={self.warmup_updates} and "
                f"decay_updates={self.decay_updates} together"
            )


class WarmupStableDecay(LRScheduler):
    """Hu et al. (2024, MiniCPM, sec. 4); shapes of the decay as in Haegele et al. (2024, sec. 3).

    The run's length enters only where the decay begins: runs of different lengths are equal up to the first decay.
    """

    def __init__(self, cfg: WarmupStableDecayConfig, optimizer: torch.optim.Optimizer):
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        cfg = self.cfg
        if num_updates < cfg.warmup_updates:
            return float(self.base_lr * num_updates / cfg.warmup_updates)
        left = cfg.max_update - num_updates
        if left >= cfg.decay_updates:
            return self.base_lr
        if left <= 0:
            return float(cfg.min_lr)
        share = left / cfg.decay_updates
        if cfg.decay == "1-sqrt":
            share = 1 - (1 - share) ** 0.5
        return float(cfg.min_lr + (self.base_lr - cfg.min_lr) * share)
