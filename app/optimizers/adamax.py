"""Adamax, as fairseq computes it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.optimizers import OneByOne
from app.ranges import at_least, positive, two_betas


@dataclass
class AdamaxConfig:
    lr: float  # learning rate that schedulers start from
    betas: list[float]  # decay of the running mean of the gradient, and of its largest size
    eps: float  # added to the largest size of the gradient
    weight_decay: float  # share of each parameter that is taken away per update, times the learning rate
    bias_correction: bool  # make up for the mean's start at zero

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr")
        yield from at_least(self, 0, "eps", "weight_decay")
        yield from two_betas(self)


class Adamax(OneByOne):
    """Kingma and Ba (2015, algorithm 2), with decoupled weight decay.

    torch's adds `eps` to every gradient rather than to the maximum, adds weight decay to the gradient, and always
    corrects the bias.
    """

    def __init__(self, cfg: AdamaxConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        (beta1, beta2), state = self.cfg.betas, self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_inf=torch.zeros_like(p))
        state["step"] += 1
        state["exp_avg"].lerp_(grad, 1 - beta1)
        torch.maximum(state["exp_inf"].mul_(beta2), grad.abs(), out=state["exp_inf"])
        bias = 1 - beta1 ** state["step"] if self.cfg.bias_correction else 1.0
        p.mul_(1 - lr * self.cfg.weight_decay)
        p.addcdiv_(state["exp_avg"], state["exp_inf"] + self.cfg.eps, value=-lr / bias)
