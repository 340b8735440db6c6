"""Dropout that draws 16 random bits an element instead of one random number."""

from typing import Any

import torch
from torch import Tensor, nn

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an element


class Dropout(nn.Module):
    """Zeroes elements with probability `p` and divides the rest by the share that is kept (Srivastava et al., 2014).

    On the CPU torch draws one number an element on one thread, which takes longer than the layer around it. Here four
    elements share a 64-bit draw; `p` is rounded to a multiple of 1/65536 and the scale is that of the rounded value,
    so that the expectation is exact.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        dropped: Tensor = _BitDropout.apply(x, round(self.p * 65536))  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _BitDropout(torch.autograd.Function):
    """Drops each element with probability `threshold` / 65536."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        count = x.numel()
        draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        keep = draws.view(torch.int16)[:count].view(x.shape).ge_(threshold - 32768).neg_()  # all bits, or none
        ctx.save_for_backward(keep)
        ctx.scale = 65536 / (65536 - threshold)
        return _kept(x, keep, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return _kept(grads[0], keep, ctx.scale), None


def _kept(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """x times `scale` where `keep` has all bits set, and 0 elsewhere. To multiply by bools takes ten times as long."""
    return x.view(BITS[x.element_size()]).bitwise_and(keep).view(x.dtype).mul_(scale)
