"""A learning rate for each epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least, positive


@dataclass
class FixedConfig:
    lr: list[float] | None  # rate of each epoch, the last for all that follow; null: the optimizer's in every epoch
    force_anneal: int | None  # from this epoch on, shrink the last rate once an epoch; null: never
    lr_shrink: float  # factor of each such shrinking
    warmup_updates: int  # updates over which the rate rises linearly

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr_shrink")
        yield from at_least(self, 0, "warmup_updates")
        if self.lr is not None and (not self.lr or min(self.lr) < 0):
            yield f"lr={self.lr}: must be rates of 0 or more, one an epoch"


class Fixed(LRScheduler):
    """Constant within an epoch. The epoch's number is the only state."""

    def __init__(self, cfg: FixedConfig, optimizer: torch.optim.Optimizer):
        self.rates: list[float] = cfg.lr or [optimizer.defaults["lr"]]
        self.epoch = 1
        self.num_updates = 0
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        warmup = self.cfg.warmup_updates
        rise = min((num_updates + 1) / warmup, 1.0) if warmup else 1.0
        return rise * self._epoch_lr()

    def _epoch_lr(self) -> float:
        anneal = self.cfg.force_anneal
        if anneal is None or self.epoch < anneal:
            return self.rates[min(self.epoch, len(self.rates)) - 1]
        shrunk: float = self.rates[-1] * self.cfg.lr_shrink ** (self.epoch + 1 - anneal)
        return shrunk

    def step_update(self, num_updates: int) -> None:
        self.num_updates = num_updates
        super().step_update(num_updates)

    def step(self, epoch: int, valid_loss: float | None) -> None:
        self.epoch = epoch + 1
        self.step_update(self.num_updates)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.step_update(state["num_updates"])
