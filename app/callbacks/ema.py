"""A running average of the weights, which is validated and saved for translation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.callbacks import Callback
from app.ranges import at_least, probability


@dataclass
class EMAConfig:
    decay: float  # weight of the old average at every update, once there are many updates
    start_update: int  # until then the average is a copy of the weights

    def check(self) -> Iterator[str]:
        yield from probability(self, "decay")
        yield from at_least(self, 0, "start_update")


class EMA(Callback):
    """Polyak averaging with exponential decay. Early on the decay is (1 + n) / (10 + n), n the updates averaged."""

    def __init__(self, cfg: EMAConfig):
        self.cfg = cfg
        self.average: dict[str, Tensor] = {}
        self.held: dict[str, Tensor] = {}

    def on_start(self, trainer: Any) -> None:
        weights = _weights(trainer)
        for name, weight in weights.items():
            self.average[name] = self.average[name].to(weight.device) if name in self.average else weight.clone()

    @torch.no_grad()
    def after_update(self, trainer: Any) -> None:
        averaged = trainer.num_updates - self.cfg.start_update
        decay = min(self.cfg.decay, (1 + averaged) / (10 + averaged)) if averaged > 0 else 0.0
        weights = _weights(trainer)
        floating = [name for name, weight in weights.items() if weight.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floating], [weights[n] for n in floating], 1 - decay)

    def before_validation(self, trainer: Any) -> None:
        self.held = {name: weight.clone() for name, weight in _weights(trainer).items()}
        self._put(trainer, self.average)

    def after_validation(self, trainer: Any, metrics: dict[str, float]) -> None:
        self._put(trainer, self.held)
        self.held = {}

    def averaged(self) -> dict[str, Tensor]:
        return self.average

    def load_averaged(self, weights: dict[str, Tensor]) -> None:
        self.average = weights

    @staticmethod
    @torch.no_grad()
    def _put(trainer: Any, source: dict[str, Tensor]) -> None:
        for name, weight in _weights(trainer).items():
            weight.copy_(source[name])


def _weights(trainer: Any) -> dict[str, Tensor]:
    """Parameters and buffers, each shared one once."""
    named = [*trainer.model.named_parameters(), *trainer.model.named_buffers()]
    saved = trainer.model.state_dict().keys()
    return {name: tensor.detach() for name, tensor in named if name in saved}
