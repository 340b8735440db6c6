"""The schedulers that an optimizer's parts have of their own, driven as one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.interfaces import LRScheduler


@dataclass
class PassThroughConfig:
    """Nothing to set: the parts' schedulers have their own fields."""


class HasSchedulers(Protocol):
    """An optimizer of several parts (`app.optimizers.composite`)."""

    lr_schedulers: Mapping[str, LRScheduler]


class PassThrough(LRScheduler):
    """Hands every call to each part's scheduler; `lr_at` is the first part's rate, which is the one that is logged."""

    over_groups = True  # app.compatibility lets it stand with optimizers of several parts, and with no other

    def __init__(self, cfg: PassThroughConfig, optimizer: HasSchedulers):
        self.parts = optimizer.lr_schedulers
        self.step_update(0)

    def lr_at(self, num_updates: int) -> float:
        return next(iter(self.parts.values())).lr_at(num_updates)

    def step_update(self, num_updates: int) -> None:
        for part in self.parts.values():
            part.step_update(num_updates)

    def step(self, epoch: int, valid_loss: float | None) -> None:
        for part in self.parts.values():
            part.step(epoch, valid_loss)

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
