"""The average that a schedule-free optimizer keeps is what is validated and saved for translation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.callbacks import Callback
from app.errors import ConfigError


@dataclass
class ScheduleFreeConfig:
    """No settings."""


class ScheduleFree(Callback):
    """Training goes on from the very numbers that stood there before a validation, so that resumed runs are exact."""

    def __init__(self, cfg: ScheduleFreeConfig):
        self.held: dict[str, Tensor] = {}

    def on_start(self, trainer: Any) -> None:
        self.model, self.optimizer = trainer.model, trainer.optimizer.inner
        if not hasattr(self.optimizer, "average"):
            name = type(self.optimizer).__name__
            raise ConfigError([f"callbacks=schedule_free: {name} keeps no average; choose schedule_free_adamw"])

    @torch.no_grad()
    def before_validation(self, trainer: Any) -> None:
        self.held = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        for p in self.model.parameters():
            p.copy_(self.optimizer.average(p))

    @torch.no_grad()
    def after_validation(self, trainer: Any, metrics: dict[str, float]) -> None:
        for name, p in self.model.named_parameters():
            p.copy_(self.held[name])
        self.held = {}

    def averaged(self) -> dict[str, Tensor]:
        parameters = {name: self.optimizer.average(p) for name, p in self.model.named_parameters()}
        kept = self.model.state_dict().keys()
        return parameters | {name: b.detach() for name, b in self.model.named_buffers() if name in kept}
