"""Warm-up, then a constant rate, then exponential decay."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least, positive


@dataclass
class TriStageConfig:
    warmup_steps: int  # updates of linear warm-up
    hold_steps: int  # updates at the optimizer's rate
    decay_steps: int  # updates of decay, after which the last rate stays
    phase_ratio: list[float] | None  # shares of `max_update` that take the place of the three numbers above
    init_lr_scale: float  # the first rate, as a share of the optimizer's
    final_lr_scale: float  # the last rate, as a share of the optimizer's
    max_update: int  # where the run ends; read only with `phase_ratio`

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_steps", "hold_steps", "decay_steps", "init_lr_scale")
        yield from positive(self, "final_lr_scale")
        ratio = self.phase_ratio
        if ratio is None:
            if not any(self.phases()):
                yield "warmup_steps=0: hold_steps and decay_steps are 0 too; give at least one phase, or phase_ratio"
        elif len(ratio) != 3 or min(ratio) < 0 or not math.isclose(sum(ratio), 1.0):
            yield f"phase_ratio={ratio}: must be three shares that add up to 1"
        elif self.max_update <= 0:
            yield f"phase_ratio={ratio}: needs the run's length; set max_update"

    def phases(self) -> tuple[int, int, int]:
        """Updates of warm-up, of the constant rate and of decay."""
        if self.phase_ratio is None:
            return self.warmup_steps, self.hold_steps, self.decay_steps
        warmup, hold, decay = (int(self.max_update * share) for share in self.phase_ratio)
        return warmup, hold, decay


class TriStage(LRScheduler):
    """As in SpecAugment (Park et al., 2019, sec. 3.2). `decay_steps=0`, at which fairseq divides by zero, is a drop."""

    def __init__(self, cfg: TriStageConfig, optimizer: torch.optim.Optimizer):
        self.warmup, self.hold, self.decay = cfg.phases()
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        peak, cfg = self.base_lr, self.cfg
        if num_updates < self.warmup:
            return float(peak * (cfg.init_lr_scale + (1 - cfg.init_lr_scale) * num_updates / self.warmup))
        decayed = num_updates - self.warmup - self.hold
        if decayed < 0:
            return peak
        if decayed >= self.decay:
            return float(peak * cfg.final_lr_scale)
        return float(peak * cfg.final_lr_scale ** (decayed / self.decay))
