"""Adam with decoupled weight decay, as fairseq computes it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.ranges import at_least, positive, two_betas


@dataclass
class AdamConfig:
    lr: float  # learning rate that schedulers start from
    betas: list[float]  # decay of the running means of the gradient and of its square
    eps: float  # added to the root of the mean square, before its bias is corrected
    weight_decay: float  # share of each parameter that is taken away per update, times the learning rate

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr")
        yield from at_least(self, 0, "eps", "weight_decay")
        yield from two_betas(self)


class Adam(torch.optim.AdamW):
    """Kingma and Ba (2015, the efficient form at the end of sec. 2) with Loshchilov and Hutter's (2019) weight decay.

    It differs from torch's AdamW only in `eps`, which is added before bias correction. With c = sqrt(1 - beta2 ** t),
    lr * c / (1 - beta1 ** t) * m / (sqrt(v) + eps) equals torch's step with eps / c, so torch's fused kernel does it.
    """

    def __init__(self, cfg: AdamConfig, params: Iterable[Tensor]):
        betas = (cfg.betas[0], cfg.betas[1])
        super().__init__(params, lr=cfg.lr, betas=betas, eps=cfg.eps, weight_decay=cfg.weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        own = [group["eps"] for group in self.param_groups]
        for group in self.param_groups:
            taken = next((int(self.state[p]["step"]) for p in group["params"] if self.state[p]), 0)
            group["eps"] /= (1 - group["betas"][1] ** (taken + 1)) ** 0.5
        try:
            return super().step(closure)
        finally:
            for group, eps in zip(self.param_groups, own, strict=True):
                group["eps"] = eps
