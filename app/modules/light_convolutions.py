"""Convolutions with few weights: one kernel a head, fixed or made from the input (Wu et al., 2019, sec. 3 and 4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.dropout import Dropout

LIGHTWEIGHT, DYNAMIC = "lightweight", "dynamic"


class LightweightConv(nn.Module):
    """All channels of a head share one kernel: [B, T + width - 1, C] -> [B, T, C]."""

    def __init__(self, dim: int, heads: int, width: int, softmax: bool, dropout: float):
        """`softmax`: the weights of a kernel are positive and their sum is 1. `dropout`: on the weights."""
        super().__init__()
        self.share, self.softmax, self.dropout = dim // heads, softmax, Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(heads, 1, width))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, window: Tensor) -> Tensor:
        weight = self.dropout(self.weight.softmax(dim=-1) if self.softmax else self.weight)
        kernels = weight.repeat_interleave(self.share, dim=0)  # [C, 1, width]
        return F.conv1d(window.transpose(1, 2), kernels, groups=kernels.size(0)).transpose(1, 2)

    @property
    def width(self) -> int:
        return self.weight.size(-1)


class DynamicConv(nn.Module):
    """Each position makes its heads' kernels from its own vector: [B, T, C] and its window -> [B, T, C].

    fairseq's `conv_bias`, which it never reads, is left out.
    """

    def __init__(self, dim: int, heads: int, width: int, softmax: bool, dropout: float):
        super().__init__()
        self.heads, self.width, self.softmax, self.dropout = heads, width, softmax, Dropout(dropout)
        self.weight_linear = nn.Linear(dim, heads * width, bias=False)

    def forward(self, x: Tensor, window: Tensor) -> Tensor:
        weight = self.weight_linear(x).view(*x.shape[:2], self.heads, self.width).transpose(1, 2)  # [B, H, T, width]
        weight = self.dropout(weight.softmax(dim=-1) if self.softmax else weight)
        values = window.view(*window.shape[:2], self.heads, -1).transpose(1, 2)  # [B, H, T + width - 1, C / H]
        return (_band(weight) @ values).transpose(1, 2).flatten(2)


def _band(weight: Tensor) -> Tensor:
    """[B, H, T, width] -> [B, H, T, T + width - 1]: row t moved t to the right, zeros elsewhere.

    Rows are padded to one more than they need, and read again as if they were not.
    """
    length, width = weight.shape[-2:]
    columns = length + width - 1
    padded = F.pad(weight, (0, length)).flatten(2)
    return padded[..., : length * columns].view(*weight.shape[:3], columns)
