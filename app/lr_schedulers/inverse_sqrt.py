"""Linear warm-up, then decay with the inverse square root of the update's number."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least


@dataclass
class InverseSquareRootConfig:
    warmup_updates: int  # updates of linear warm-up
    warmup_init_lr: float  # learning rate at update 0

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_updates", "warmup_init_lr")


class InverseSquareRoot(LRScheduler):
    """Vaswani et al. (2017), sec. 5.3; the optimizer's `lr` is reached at the end of warm-up.

    Without warm-up the rate is lr / sqrt(n) from the first update on (fairseq divides by zero there).
    """

    def __init__(self, cfg: InverseSquareRootConfig, optimizer: torch.optim.Optimizer):
        self.warmup, self.init_lr = cfg.warmup_updates, cfg.warmup_init_lr
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        if num_updates < self.warmup:
            return self.init_lr + num_updates * (self.base_lr - self.init_lr) / self.warmup
        return float(self.base_lr * (max(self.warmup, 1) / max(num_updates, 1)) ** 0.5)
