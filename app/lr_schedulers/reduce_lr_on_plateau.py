"""A learning rate that falls when validation stops getting better."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau as Plateau

from app.interfaces import LRScheduler
from app.ranges import at_least, one_of

KEPT = ("best", "num_bad_epochs", "last_epoch")


@dataclass
class ReduceLROnPlateauConfig:
    lr_shrink: float  # factor of each reduction
    lr_threshold: float  # relative change of the metric that counts as a gain
    lr_patience: int  # epochs without a gain that are borne before a reduction
    warmup_updates: int  # updates of linear warm-up; epochs that end in it are not judged
    warmup_init_lr: float  # learning rate at update 0
    mode: str  # min or max: what a better metric is (`maximize_best_checkpoint_metric` in fairseq)

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "lr_threshold", "lr_patience", "warmup_updates", "warmup_init_lr")
        if not 0 < self.lr_shrink < 1:
            yield f"lr_shrink={self.lr_shrink}: must lie between 0 and 1, both left out"
        yield from one_of(self, "mode", "min", "max")


class ReduceLROnPlateau(LRScheduler):
    """torch's scheduler of that name, once an epoch that was validated, after a linear warm-up.

    The metric is the checkpoints' one. Everything that it counts is saved; fairseq forgets the number of bad epochs and
    the reduced rate when a run is resumed.
    """

    def __init__(self, cfg: ReduceLROnPlateauConfig, optimizer: torch.optim.Optimizer):
        self.lr: float = optimizer.defaults["lr"]
        self.num_updates = 0
        self.plateau = Plateau(
            optimizer,
            mode="max" if cfg.mode == "max" else "min",
            factor=cfg.lr_shrink,
            patience=cfg.lr_patience,
            threshold=cfg.lr_threshold,
        )
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        init, warmup = self.cfg.warmup_init_lr, self.cfg.warmup_updates
        if num_updates < warmup:
            return float(init + num_updates * (self.base_lr - init) / warmup)
        return self.lr

    def step_update(self, num_updates: int) -> None:
        self.num_updates = num_updates
        super().step_update(num_updates)

    def step(self, epoch: int, valid_loss: float | None) -> None:
        warm = not self.cfg.warmup_updates or self.num_updates > self.cfg.warmup_updates
        if valid_loss is not None and warm:
            self.plateau.step(valid_loss)
            self.lr = float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        counters = {name: getattr(self.plateau, name) for name in KEPT}
        return {"lr": self.lr, "num_updates": self.num_updates, **counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lr = state["lr"]
        for name in KEPT:
            setattr(self.plateau, name, state[name])
        self.step_update(state["num_updates"])
