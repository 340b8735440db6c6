"""Attention by plain products, for training in bf16 on a CPU, with a backward pass that copies and keeps little."""

from typing import Any

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """q [B, H, T, d], k and v [B, H, S, d] in one dtype -> [B, H, T, d]; the softmax is in fp32.

    `mask` (True: may be seen) broadcasts to [B, H, T, S]; `causal` hides what is later.
    """
    out: Tensor = _Attention.apply(q, k, v, mask, causal)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # once, rather than in each product
        scores = torch.matmul(q, k.transpose(-2, -1)).float().mul_(q.size(-1) ** -0.5)
        if causal:
            scores.masked_fill_(future(q.size(2), k.size(2), q.device), float("-inf"))
        if mask is not None:
            scores.masked_fill_(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=-1, out=scores)
        ctx.save_for_backward(q, k, v, weights)
        return torch.matmul(weights.to(v.dtype), v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_v = torch.matmul(weights.to(v.dtype).transpose(-2, -1), grad)
        d_weights = torch.matmul(grad, v.transpose(-2, -1)).float()  # torch's softmax is ten times slower in bf16
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, torch.float32)
        d_scores = d_scores.mul_(q.size(-1) ** -0.5).to(q.dtype)
        return torch.matmul(d_scores, k), torch.matmul(d_scores.transpose(-2, -1), q), d_v, None, None


def future(queries: int, keys: int, device: torch.device) -> Tensor:
    """True where a key is later than a query, the last ones being side by side."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).triu_(keys - queries + 1)
