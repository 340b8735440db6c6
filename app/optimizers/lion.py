"""Lion: every number moves by the learning rate, up or down."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.optimizers import OneByOne
from app.ranges import at_least, positive, two_betas


@dataclass
class LionConfig:
    lr: float  # learning rate that schedulers start from; a third to a tenth of Adam's
    betas: list[float]  # share of the running mean in the sign that is taken, and the mean's decay
    weight_decay: float  # share of each parameter that is taken away per update, times the learning rate

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr")
        yield from at_least(self, 0, "weight_decay")
        yield from two_betas(self)


class Lion(OneByOne):
    """Chen et al. (2023, algorithm 2)."""

    def __init__(self, cfg: LionConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        beta1, beta2 = self.cfg.betas
        mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
        p.mul_(1 - lr * self.cfg.weight_decay)
        p.sub_(mean.lerp(grad, 1 - beta1).sign_(), alpha=lr)
        mean.lerp_(grad, 1 - beta2)
