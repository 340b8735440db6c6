"""A learning rate that falls in steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least, between, positive


@dataclass
class StepConfig:
    warmup_updates: int  # updates of linear warm-up
    warmup_init_lr: float  # learning rate at update 0
    min_lr: float  # the rate falls no lower
    lr_decay_period: int  # updates between two steps
    lr_decay: float  # factor of each step

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_updates", "warmup_init_lr", "min_lr")
        yield from positive(self, "lr_decay_period")
        yield from between(self, 0, 1, "lr_decay")


class Step(LRScheduler):
    """Linear warm-up, then `lr_decay` once every `lr_decay_period` updates (`lr_deacy_period` in fairseq)."""

    def __init__(self, cfg: StepConfig, optimizer: torch.optim.Optimizer):
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        init, warmup = self.cfg.warmup_init_lr, self.cfg.warmup_updates
        if num_updates < warmup:
            return float(init + num_updates * (self.base_lr - init) / warmup)
        steps = (num_updates - warmup) // self.cfg.lr_decay_period
        return float(max(self.base_lr * self.cfg.lr_decay**steps, self.cfg.min_lr))
