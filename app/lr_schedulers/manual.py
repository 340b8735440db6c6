"""Learning rates written down by hand, by epoch or by update."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.interfaces import LRScheduler


@dataclass
class ManualConfig:
    epoch2lr: dict[Any, float] | None  # rate from an epoch on; keys are numbers from 1, "1-3" or "6,8"; null: none
    update2lr: dict[Any, float] | None  # rate from an update on, in the same way

    def check(self) -> Iterator[str]:
        for name in ("epoch2lr", "update2lr"):
            for key, lr in (getattr(self, name) or {}).items():
                try:
                    known = bool(numbers(key))
                except ValueError:
                    known = False
                if not known:
                    yield f"{name}={{{key}: {lr}}}: a key must be a number, a range such as 1-3, or a list such as 6,8"
                elif lr < 0:
                    yield f"{name}={{{key}: {lr}}}: a rate must be 0 or more"


class Manual(LRScheduler):
    """A rate holds until the next number that has one; before the first, the optimizer's rate.

    `update2lr` goes before `epoch2lr` from its first update on. (fairseq falls back to `epoch2lr` for one update at
    the start of every epoch.)
    """

    def __init__(self, cfg: ManualConfig, optimizer: torch.optim.Optimizer):
        self.by_epoch, self.by_update = table(cfg.epoch2lr), table(cfg.update2lr)
        self.epoch, self.num_updates = 1, 0
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        by_epoch = newest(self.by_epoch, self.epoch, self.base_lr)
        return newest(self.by_update, max(num_updates, 1), by_epoch)

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


def numbers(key: Any) -> list[int]:
    """`4`, `1-3` or `6,8` -> the numbers it names. Raises ValueError for anything else."""
    words = str(key)
    if "," in words:
        return [int(word) for word in words.split(",")]
    first, _, last = words.partition("-")
    return list(range(int(first), int(last or first) + 1))


def table(rates: dict[Any, float] | None) -> dict[int, float]:
    return {number: lr for key, lr in (rates or {}).items() for number in numbers(key)}


def newest(rates: dict[int, float], number: int, otherwise: float) -> float:
    """The rate of the greatest number up to this one."""
    reached = [key for key in rates if key <= number]
    return rates[max(reached)] if reached else otherwise
