"""Lightweight and dynamic convolutions against their definitions, position by position (Wu et al., 2019)."""

import pytest
import torch

from app.modules.convolution_windows import centred, past
from app.modules.light_convolutions import DynamicConv, LightweightConv

B, T, C, HEADS = 2, 6, 8, 4


def by_definition(x, kernels, start):
    """Position t, channel c: the sum over k of kernels[b, t, head of c, k] * x[t + start + k]; zeros outside."""
    out = torch.zeros_like(x)
    for t in range(x.size(1)):
        for c in range(x.size(2)):
            for k in range(kernels.size(-1)):
                place = t + start + k
                if 0 <= place < x.size(1):
                    out[:, t, c] += kernels[:, t, c * HEADS // C, k] * x[:, place, c]
    return out


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(
    ("window", "start"), [(past, lambda width: 1 - width), (centred, lambda width: -((width - 1) // 2))]
)
def test_both_kinds_equal_their_definitions(width, window, start, softmax):
    torch.manual_seed(width)
    x = torch.randn(B, T, C)
    light = LightweightConv(C, HEADS, width, softmax, dropout=0.0)
    weight = light.weight[:, 0].softmax(-1) if softmax else light.weight[:, 0]
    kernels = weight.expand(B, T, HEADS, width)
    torch.testing.assert_close(light(window(x, width)), by_definition(x, kernels, start(width)))
    dynamic = DynamicConv(C, HEADS, width, softmax, dropout=0.0)
    kernels = (x @ dynamic.weight_linear.weight.t()).view(B, T, HEADS, width)
    kernels = kernels.softmax(-1) if softmax else kernels
    torch.testing.assert_close(dynamic(x, window(x, width)), by_definition(x, kernels, start(width)))
