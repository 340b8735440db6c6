"""Lion: every number moves by the learning rate, up or down."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.ranges import at_least, positive


@dataclass
class LionConfig:
    lr: float  # learning rate that schedulers start from; a third to a tenth of Adam's
    betas: list[float]  # share of the running mean in the sign that is taken, and the mean's decay
    weight_decay: float  # share of each parameter that is taken away per update, times the learning rate

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr")
        yield from at_least(self, 0, "weight_decay")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas={self.betas}: must be two numbers, each 0 or more and less than 1"


class Lion(torch.optim.Optimizer):
    """Chen et al. (2023, algorithm 2)."""

    def __init__(self, cfg: LionConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        beta1, beta2 = self.cfg.betas
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                    p.mul_(1 - group["lr"] * self.cfg.weight_decay)
                    p.sub_(mean.lerp(p.grad, 1 - beta1).sign_(), alpha=group["lr"])
                    mean.lerp_(p.grad, 1 - beta2)
        return loss
