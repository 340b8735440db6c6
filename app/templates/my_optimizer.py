"""MyOptimizer: say here what the step is, and where it comes from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.optimizers import OneByOne
from app.ranges import positive, probability


@dataclass
class MyOptimizerConfig:
    lr: float  # learning rate that schedulers start from
    momentum: float  # decay of the running mean of gradients

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr")
        yield from probability(self, "momentum")


class MyOptimizer(OneByOne):
    """A step along the running mean of gradients, of the size that its root mean square is 1 times the rate."""

    def __init__(self, cfg: MyOptimizerConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        mean = self.state[p].setdefault("mean", torch.zeros_like(p))  # what is in `state` is saved with checkpoints
        mean.lerp_(grad, 1 - self.cfg.momentum)
        p.sub_(lr * mean / (mean.square().mean().sqrt() + 1e-8))
