"""Weights in the form in which a CPU multiplies fastest, for models that will not be trained any more.

Between the products activations are bf16 where the weights are, else fp32. Nothing here changes a model's names.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.attention import MultiheadAttention
from app.modules.transformer_layer import Layer

PRECISIONS = ("fp32", "bf16", "int8")


def packed(model: nn.Module, precision: str) -> None:
    """Replace the linear layers of a model on the CPU, in place, by layers of packed weights.

    fp32: the same numbers, but for rounding. bf16: the whole model's weights and activations are rounded to bf16, sums
    inside of products are fp32. int8: weights of linear layers are rounded to 8 bits with a scale for each output,
    their inputs with a scale for each product.
    """
    if precision == "bf16":
        model.bfloat16()
    for module in list(model.modules()):
        if isinstance(module, MultiheadAttention):
            module.pack(lambda parts: PackedLinear(joined(parts), precision, keep=False))
        if isinstance(module, Layer):
            module.pack(lambda part: PackedLinear(part, precision, relu=True))
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
    """What `nn.Linear` computes, [..., in] -> [..., out], then ReLU if `relu`. If `keep`, it has weight and bias too.

    The input has the dtype of the weights: bf16, or else fp32.
    """

    def __init__(self, linear: nn.Linear, precision: str, keep: bool = True, relu: bool = False):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        if keep:
            self.weight, self.bias = linear.weight, linear.bias
        self.int8, self.relu = precision == "int8", relu
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        weight, bias = (None if each is None else each.detach() for each in (linear.weight, linear.bias))
        assert weight is not None
        self.packed_bias = bias if self.int8 or bias is None else bias.to(dtype)
        self.packed: Any = _int8(weight, bias) if self.int8 else _reordered(weight.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor
        if self.int8:
            linear = torch.ops.quantized.linear_relu_dynamic if self.relu else torch.ops.quantized.linear_dynamic
            y = linear(x, self.packed, False)
        elif self.packed.is_mkldnn:
            after = "relu" if self.relu else "none"
            y = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.packed_bias, after, [], "")
        else:
            y = F.linear(x, self.packed, self.packed_bias)
            y = F.relu(y) if self.relu else y
        return y


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
