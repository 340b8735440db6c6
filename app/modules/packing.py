"""Weights in the form in which a CPU multiplies fastest, for models that will not be trained any more.

Activations stay fp32 between the products. Nothing here changes a model's names or its state dict.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.attention import MultiheadAttention

PRECISIONS = ("fp32", "bf16", "int8")


def packed(model: nn.Module, precision: str) -> None:
    """Replace the linear layers of a model on the CPU, in place, by layers of packed weights.

    fp32: the same numbers, but for rounding. bf16: weights and inputs of products are rounded to bf16, sums are fp32.
    int8: weights are rounded to 8 bits with a scale for each output, inputs with a scale for each product.
    """
    for module in list(model.modules()):
        if isinstance(module, MultiheadAttention):
            module.pack(lambda parts: PackedLinear(joined(parts), precision, keep=False))
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child, precision))


def joined(parts: list[nn.Linear]) -> nn.Linear:
    """One layer whose outputs are those of all parts, side by side."""
    layer = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), device="meta")
    layer.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
    layer.bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)
    return layer


class PackedLinear(nn.Module):
    """What `nn.Linear` computes, [..., in] -> [..., out]. If `keep`, it has weight and bias under their names."""

    def __init__(self, linear: nn.Linear, precision: str, keep: bool = True):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        if keep:
            self.weight, self.bias = linear.weight, linear.bias
        self.int8 = precision == "int8"
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        weight, bias = (None if each is None else each.detach() for each in (linear.weight, linear.bias))
        assert weight is not None
        self.packed_bias = bias if self.int8 or bias is None else bias.to(self.dtype)
        self.packed: Any = _int8(weight, bias) if self.int8 else _reordered(weight.to(self.dtype))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor
        if self.int8:
            y = torch.ops.quantized.linear_dynamic(x, self.packed, False)
            return y
        x = x.to(self.dtype)
        if self.packed.is_mkldnn:
            y = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.packed_bias, "none", [], "")
        else:
            y = F.linear(x, self.packed, self.packed_bias)
        return y.float()


def _reordered(weight: Tensor) -> Tensor:
    """The weight in oneDNN's own layout, which it then need not make at every product; as it is where oneDNN is not."""
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return weight
    reordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return reordered


def _int8(weight: Tensor, bias: Tensor | None) -> Any:
    """[out, in] with a scale for each output."""
    scales = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12).double()
    zeros = torch.zeros(len(weight), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torchao, which has no such kernel for every CPU
        quantized = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(quantized, bias)
