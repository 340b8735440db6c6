"""Linear layers and convolutions with weight norm: a direction and a length an output (Salimans and Kingma, 2016).

torch's own weight norm keeps its parameters under other names than fairseq's checkpoints do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WeightNormLinear(nn.Module):
    """[..., inputs] -> [..., outputs]."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0):
        """`dropout`: the rate on the inputs; initial weights keep the inputs' variance (Gehring et al., 2017, A.1)."""
        super().__init__()
        self.weight_v = nn.Parameter(torch.randn(outputs, inputs) * ((1 - dropout) / inputs) ** 0.5)
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True)), self.bias)


class WeightNormConvolution(nn.Module):
    """A convolution over time, without padding: [B, T + width - 1, inputs] -> [B, T, outputs]."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float = 0.0):
        """`dropout`: as for `WeightNormLinear`; a gated linear unit follows, which the initial weights make up for."""
        super().__init__()
        self.weight_v = nn.Parameter(
            torch.randn(width, inputs, outputs) * (4 * (1 - dropout) / (width * inputs)) ** 0.5
        )
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        return F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), self.bias).transpose(1, 2)
