"""Attention with gated projections, whose heads may see every nth position (Fan et al., 2018, sec. 3.3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.gated_convolutions import plain_linear
from app.modules.weight_norm import WeightNormLinear


def gated_linear(inputs: int, outputs: int) -> nn.Sequential:
    """Three linear layers with gated linear units between them."""
    return nn.Sequential(
        WeightNormLinear(inputs, 4 * outputs),
        nn.GLU(),
        WeightNormLinear(2 * outputs, 2 * outputs),
        nn.GLU(),
        WeightNormLinear(outputs, outputs),
    )


class Heads(nn.Module):
    """`heads` of `width` each, which see every `stride`th position."""

    def __init__(
        self, dim: int, out_dim: int, heads: int, width: int, project: bool, gated: bool, stride: int | None = None
    ):
        """`stride=None`: all positions; fairseq's names of parameters differ between that and a stride of 1."""
        super().__init__()
        self.heads, self.width, self.stride, self.project = heads, width, stride or 1, project
        if project:
            make = gated_linear if gated else WeightNormLinear
            before = [] if stride is None else [nn.Identity()]
            self.in_proj_q = make(dim, heads * width)
            self.in_proj_k = nn.Sequential(*before, make(dim, heads * width))
            self.in_proj_v = nn.Sequential(*before, make(dim, heads * width))
        self.out_proj = WeightNormLinear(heads * width, out_dim)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, past: bool, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """query [N, T, D], key and value [M, S, D], keep [M, S] -> [N, T, out_dim], and weights [N, T, S'].

        N may be a multiple of M where T = 1. `past`: the queries are the last T of the S positions; each sees those
        before its own, and nothing (a score and a value of 0).
        """
        rows, length = query.shape[:2], key.size(1)
        key, value = key[:, :: self.stride], value[:, :: self.stride]
        if self.project:
            query, key, value = self.in_proj_q(query), self.in_proj_k(key), self.in_proj_v(value)
        q, k, v = (self._split(x.reshape(len(key), -1, x.size(-1))) for x in (query, key, value))
        scores = q * self.width**-0.5 @ k.transpose(-2, -1)  # [M, H, N / M * T, S']
        if keep is not None:
            scores = scores.masked_fill(~keep[:, None, None, :: self.stride], float("-inf"))
        if past:
            place = torch.arange(length, device=key.device)
            unseen = place[:: self.stride] >= place[length - rows[1] :, None]  # [T, S']
            weights = F.pad(scores.masked_fill(unseen, float("-inf")), (1, 0)).softmax(-1)[..., 1:]
        else:
            weights = scores.softmax(-1)
        y = self.out_proj((weights @ v).transpose(1, 2).reshape(*rows, -1))
        return y, weights.mean(1).reshape(*rows, -1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.width).transpose(1, 2)


class DownsampledAttention(nn.ModuleList):
    """Several heads; downsampled, head i sees every (i + 1)th position. Named as in fairseq's state_dict."""

    def __init__(
        self, dim: int, out_dim: int, heads: int, project: bool, gated: bool = False, downsample: bool = False
    ):
        width = dim // heads
        strides = range(1, heads + 1) if downsample else []
        super().__init__([Heads(dim, width, 1, width, project, gated, stride) for stride in strides])
        self.heads, self.downsample = heads, downsample
        if downsample:
            self.out_proj = WeightNormLinear(dim, out_dim)
        else:
            self.attention_module = Heads(dim, out_dim, heads, width, project, gated)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, past: bool, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Heads`; downsampled, the weights are those of the first head, which sees every position."""
        if not self.downsample:
            out: tuple[Tensor, Tensor] = self.attention_module(query, key, value, past, keep)
            return out
        found = [self[i](query, key, value, past, keep) for i in range(self.heads)]
        return self.out_proj(torch.cat([y for y, _ in found], dim=-1)), found[0][1]


class PastAttention(nn.Module):
    """Self-attention to what came before, then a layer norm over its sum with the input."""

    def __init__(self, channels: int, dim: int, heads: int, project: bool, gated: bool, downsample: bool):
        super().__init__()
        self.attention = DownsampledAttention(dim, channels, heads, project, gated, downsample)
        self.in_proj_q, self.in_proj_k, self.in_proj_v = (plain_linear(channels, dim) for _ in range(3))
        self.ln = nn.LayerNorm(channels)

    def forward(self, x: Tensor, so_far: Tensor) -> Tensor:
        """x [N, T, C], the last T positions of `so_far` [N, S, C] -> [N, T, C]."""
        y, _ = self.attention(self.in_proj_q(x), self.in_proj_k(so_far), self.in_proj_v(so_far), past=True)
        normed: Tensor = self.ln(x + y)
        return normed
