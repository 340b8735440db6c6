"""Activation functions by fairseq's names."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "gelu_accurate": partial(F.gelu, approximate="tanh"),
    "tanh": torch.tanh,
    "swish": F.silu,
    "linear": lambda x: x,
}

GATED: dict[str, Callable[[Tensor], Tensor]] = {  # of a gate that multiplies the feed-forward part (Shazeer, 2020)
    "swiglu": F.silu,
    "geglu": F.gelu,
}
