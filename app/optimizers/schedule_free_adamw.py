"""AdamW that needs no schedule: gradients are taken near a running average, and the average is the result."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.optimizers import OneByOne
from app.ranges import at_least, positive, two_betas


@dataclass
class ScheduleFreeAdamWConfig:
    lr: float  # learning rate after the warm-up; schedulers may warm up, and should not decay
    betas: list[float]  # how near the average gradients are taken, more than 0; decay of the mean of squared gradients
    eps: float  # added to the root of the mean square
    weight_decay: float  # share of each parameter that is taken away per update, times the learning rate

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr")
        yield from at_least(self, 0, "eps", "weight_decay")
        yield from two_betas(self)
        if len(self.betas) == 2 and self.betas[0] <= 0:
            yield f"betas={self.betas}: the first must be more than 0"


class ScheduleFreeAdamW(OneByOne):
    """Defazio et al. (2024, algorithm 1). Not in fairseq.

    Three points move: z by AdamW's steps without momentum; x, the mean of all z, weighted by the square of the largest
    learning rate so far; and y = (1 - beta1) z + beta1 x, where gradients are taken. Parameters hold y and the state
    holds z; x follows from both. `callbacks=schedule_free`, which this optimizer's YAML file brings along, puts x in
    place for validation and saves it as the averaged weights.
    """

    def __init__(self, cfg: ScheduleFreeAdamWConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        (beta1, beta2), state = self.cfg.betas, self.state[p]
        if not state:
            state.update(step=0, lr_max=0.0, weight_sum=0.0, z=p.clone(), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        state["lr_max"] = max(state["lr_max"], lr)
        state["weight_sum"] += state["lr_max"] ** 2
        new = state["lr_max"] ** 2 / state["weight_sum"] if state["weight_sum"] else 0.0  # the newest z's share of x
        squared = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = (squared / (1 - beta2 ** state["step"])).sqrt_().add_(self.cfg.eps)
        direction = (grad / root).add_(p, alpha=self.cfg.weight_decay)
        p.lerp_(state["z"], new).add_(direction, alpha=lr * (beta1 * (1 - new) - 1))
        state["z"].sub_(direction, alpha=lr)

    def average(self, p: Tensor) -> Tensor:
        """The x of a parameter, which is the parameter itself before its first update."""
        state = self.state.get(p)
        return p.detach().lerp(state["z"], 1 - 1 / self.cfg.betas[0]) if state else p.detach().clone()
