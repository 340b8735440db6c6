"""Where a run's numbers are: here, the whole model on every worker. See `sharding.py` for a part of it on each."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class GradientSums(Protocol):
    """What makes an update's gradients sums over workers."""

    def begin(self, last: bool) -> None:
        """Before the backward pass of a batch; `last`: of the update's last one."""

    def finish(self) -> None:
        """After an update's last backward pass: gradients become sums over workers."""


class Whole:
    """Every worker has the whole model: what the trainer asks for is already there."""

    is_split = False

    def criterion(self, criterion: nn.Module) -> nn.Module:
        """What a training step calls with model and batch."""
        return criterion

    @contextmanager
    def opened(self, model: nn.Module, writes: bool) -> Iterator[nn.Module]:
        """A model with whole weights; if `writes`, what is done to them inside is kept. All workers enter together."""
        yield model

    def gathered(self, state: Any) -> Any:
        """Nested state with whole tensors. All workers call it together."""
        return state

    def scattered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors under the names of parameters, as this worker holds them."""
        return tensors

    def scattered_state(self, state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
        """An optimizer's whole state, as this worker holds it. `parameters` in the optimizer's order."""
        return state


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of encoder and decoder: what stands in modules called `layers`."""
    stacks = (module for name, module in model.named_modules() if name.rpartition(".")[2] == "layers")
    return [layer for stack in stacks for layer in stack.children()]


def checkpoint_activations(model: nn.Module) -> None:
    """In training, layers keep their inputs only and run again in the backward pass (Chen et al., 2016)."""
    for layer in layers_of(model):
        layer.forward = partial(_forward, layer, layer.forward)


def _forward(layer: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
