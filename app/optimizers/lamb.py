"""LAMB: Adam's direction, with a step as long as the layer's weights ask for; for very large batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.optimizers import OneByOne
from app.ranges import at_least, positive, two_betas


@dataclass
class LambConfig:
    lr: float  # learning rate that schedulers start from: the share of its own size that a parameter moves
    betas: list[float]  # decay of the running means of the gradient and of its square
    eps: float  # added to the root of the mean square
    weight_decay: float  # share of each parameter that is added to its direction

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr", "eps")
        yield from at_least(self, 0, "weight_decay")
        yield from two_betas(self)


class Lamb(OneByOne):
    """You et al. (2020, algorithm 2), with phi the identity. A parameter or direction of size 0 takes Adam's step."""

    def __init__(self, cfg: LambConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        (beta1, beta2), state = self.cfg.betas, self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        mean = state["exp_avg"].lerp_(grad, 1 - beta1) / (1 - beta1 ** state["step"])
        square = state["exp_avg_sq"].lerp_(grad.square(), 1 - beta2) / (1 - beta2 ** state["step"])
        direction = mean / (square.sqrt() + self.cfg.eps) + self.cfg.weight_decay * p
        size, length = torch.linalg.vector_norm(p), torch.linalg.vector_norm(direction)
        trust = torch.where((size > 0) & (length > 0), size / length, 1.0)
        p.sub_(direction * trust, alpha=lr)
