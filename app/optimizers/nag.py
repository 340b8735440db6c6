"""Nesterov's accelerated gradient, as fairseq computes it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.ranges import at_least, positive


@dataclass
class NAGConfig:
    lr: float  # learning rate that schedulers start from
    momentum: float  # share of the last step that goes into the next
    weight_decay: float  # share of each parameter that is taken away per update, times the learning rate

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr", "momentum")
        yield from at_least(self, 0, "weight_decay")


class NAG(torch.optim.SGD):
    """Nesterov momentum in the form of Bengio et al. (2013), with decoupled weight decay.

    torch's SGD takes the same steps: its buffer is fairseq's over minus the learning rate, so that a change of the rate
    need not be made up for. At a rate of exactly 0, fairseq forgets the momentum, and this does not.
    """

    def __init__(self, cfg: NAGConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, lr=cfg.lr, momentum=cfg.momentum, nesterov=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            shrink = 1 - group["lr"] * self.cfg.weight_decay
            torch._foreach_mul_([p for p in group["params"] if p.grad is not None], shrink)
        return super().step(closure)
