"""Adafactor: the running mean of a matrix's squared gradient is kept as one number a row and one a column."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.optimizers import OneByOne
from app.ranges import at_least, positive


@dataclass
class AdafactorConfig:
    lr: float  # learning rate that schedulers start from; not read with `relative_step`
    eps: list[float]  # added to the squared gradient; and the smallest size of a parameter that scales its step
    clip_threshold: float  # root mean square of the largest update, before the learning rate
    decay_rate: float  # the running mean's decay at step t is 1 - t ** decay_rate
    beta1: float | None  # decay of a running mean of updates; null: none is kept
    weight_decay: float  # share of each parameter that is taken away per update, times the learning rate
    scale_parameter: bool  # multiply the learning rate by the parameter's root mean square
    relative_step: bool  # the learning rate is 1 / sqrt(t), at most 0.01; a scheduler has no effect
    warmup_init: bool  # with `relative_step`: at most 1e-6 * t instead

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr", "clip_threshold")
        yield from at_least(self, 0, "weight_decay")
        if len(self.eps) != 2 or min(self.eps) < 0:
            yield f"eps={self.eps}: must be two numbers of 0 or more"
        if self.beta1 is not None and not 0 <= self.beta1 < 1:
            yield f"beta1={self.beta1}: must be 0 or more and less than 1, or null"
        if self.decay_rate >= 0:
            yield f"decay_rate={self.decay_rate}: must be less than 0"
        if self.warmup_init and not self.relative_step:
            yield "warmup_init=true: needs relative_step=true"


class Adafactor(OneByOne):
    """Shazeer and Stern (2018, algorithms 4 and 5). torch's has other clipping and no parts to leave out.

    Two faults of fairseq's are mended: `relative_step` cannot be chosen there, and `scale_parameter` multiplies up from
    each parameter to the next, because the scaled rate is written back to the group.
    """

    def __init__(self, cfg: AdafactorConfig, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        cfg, state = self.cfg, self.state[p]
        state["step"] = state.get("step", 0) + 1
        if cfg.relative_step:
            lr = min(1e-6 * state["step"] if cfg.warmup_init else 1e-2, state["step"] ** -0.5)
        if cfg.scale_parameter:
            lr *= max(cfg.eps[1], float(rms(p)))
        new = state["step"] ** cfg.decay_rate  # weight of the new squared gradient
        update = grad * inverse_root(state, grad.square() + cfg.eps[0], new)
        update.div_((rms(update) / cfg.clip_threshold).clamp(min=1.0)).mul_(lr)
        if cfg.beta1 is not None:
            mean = state.setdefault("exp_avg", torch.zeros_like(p))
            update = mean.mul_(cfg.beta1).add_(update, alpha=1 - cfg.beta1)
        p.mul_(1 - lr * cfg.weight_decay).sub_(update)


def rms(x: Tensor) -> Tensor:
    """The root mean square of all numbers."""
    size: Tensor = torch.linalg.vector_norm(x) / x.numel() ** 0.5
    return size


def inverse_root(state: dict[str, Any], squared: Tensor, new: float) -> Tensor:
    """One over the root of the running mean of `squared`, which takes it in with weight `new`.

    Of two dimensions or more, only the means over the last and over the one before it are kept.
    """
    if squared.dim() < 2:
        mean: Tensor = state.setdefault("exp_avg_sq", torch.zeros_like(squared))
        return mean.mul_(1 - new).add_(squared, alpha=new).rsqrt()
    row = state.setdefault("exp_avg_sq_row", torch.zeros_like(squared[..., 0]))
    col = state.setdefault("exp_avg_sq_col", torch.zeros_like(squared[..., 0, :]))
    row.mul_(1 - new).add_(squared.mean(dim=-1), alpha=new)
    col.mul_(1 - new).add_(squared.mean(dim=-2), alpha=new)
    by_row = (row / row.mean(dim=-1, keepdim=True)).rsqrt().unsqueeze(-1)
    root: Tensor = by_row * col.rsqrt().unsqueeze(-2)
    return root
