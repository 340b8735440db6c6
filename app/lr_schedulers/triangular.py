"""A cyclical learning rate: up and down in straight lines."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least, positive


@dataclass
class TriangularConfig:
    max_lr: float  # learning rate in the middle of the first cycle; the optimizer's is the one at its ends
    lr_period_updates: int  # updates of a cycle; an odd number is rounded down to an even one
    lr_shrink: float  # the highest rate is multiplied by this after each cycle
    shrink_min: bool  # shrink the lowest rate too

    def check(self) -> Iterator[str]:
        yield from positive(self, "max_lr", "lr_shrink")
        yield from at_least(self, 2, "lr_period_updates")


class Triangular(LRScheduler):
    """Smith (2017), sec. 3.1, with cycles that get lower."""

    def __init__(self, cfg: TriangularConfig, optimizer: torch.optim.Optimizer):
        self.half = cfg.lr_period_updates // 2
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        cycle = num_updates // (2 * self.half)
        shrink = self.cfg.lr_shrink**cycle
        high, low = self.cfg.max_lr * shrink, self.base_lr * (shrink if self.cfg.shrink_min else 1.0)
        distance = abs(num_updates / self.half - 2 * cycle - 1)  # from the middle of the cycle; 1 at its ends
        return float(low + (high - low) * (1 - distance))
