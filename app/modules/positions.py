"""Where a token stands: positions count from `padding_idx + 1`, and padding gets row `padding_idx`."""

import math

import torch
from torch import Tensor, nn


def make_positions(tokens: Tensor, padding_idx: int) -> Tensor:
    """[B, T] -> [B, T]: rows of a position table, wherever the padding stands (left or right)."""
    keep = tokens.ne(padding_idx)
    return keep.cumsum(1) * keep + padding_idx


def rotated(x: Tensor, first: int) -> Tensor:
    """Queries or keys [B, H, T, d] turned by angles that grow with their position, which starts at `first`.

    The product of two of them depends on their distance alone (Su et al., 2021, sec. 3.2). Element i of the first half
    turns with element i of the second.
    """
    half = x.size(-1) // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32, device=x.device) * -(math.log(10000) / half))
    angles = torch.arange(first, first + x.size(-2), device=x.device)[:, None] * rates  # [T, d / 2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class SinusoidalPositions(nn.Module):
    """Fixed sines, in the first half of the width, and cosines in the second (Vaswani et al., 2017, sec. 3.5)."""

    table: Tensor

    def __init__(self, max_positions: int, dim: int, padding_idx: int):
        super().__init__()
        self.padding_idx, self.dim = padding_idx, dim
        self.register_buffer("table", self._make(max_positions + padding_idx + 1), persistent=False)

    def _make(self, rows: int) -> Tensor:
        half = self.dim // 2
        rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / max(1, half - 1)))
        angles = torch.arange(rows, dtype=torch.float32)[:, None] * rates[None, :]
        table = torch.zeros(rows, self.dim)
        table[:, : 2 * half] = torch.cat([angles.sin(), angles.cos()], dim=1)
        table[self.padding_idx] = 0
        return table

    def forward(self, positions: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]."""
        return nn.functional.embedding(positions, self.table)


class LearnedPositions(nn.Embedding):
    """A vector a position, learned."""

    def __init__(self, max_positions: int, dim: int, padding_idx: int):
        super().__init__(max_positions + padding_idx + 1, dim, padding_idx)
        nn.init.normal_(self.weight, std=dim**-0.5)
        nn.init.zeros_(self.weight[padding_idx])
