"""MyLrScheduler: say here what the learning rate does, and where that comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least


@dataclass
class MyLrSchedulerConfig:
    warmup_updates: int  # updates of linear warm-up; the rate is constant from then on

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_updates")


class MyLrScheduler(LRScheduler):
    """A pure function of the update's number, so that there is nothing to save."""

    def __init__(self, cfg: MyLrSchedulerConfig, optimizer: torch.optim.Optimizer):
        self.warmup = cfg.warmup_updates
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        return self.base_lr * min(1.0, (num_updates + 1) / (self.warmup + 1))
