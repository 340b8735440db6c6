"""Layers of which training leaves some out, so that a part of them can be taken away afterwards."""

from collections.abc import Callable, Iterator

import torch
from torch import nn


class LayerStack(nn.Module):
    """LayerDrop (Fan et al., 2020, sec. 3). Iterating gives the layers that this pass has.

    In training each layer is left out with probability `layerdrop`, anew in every pass. `layers_to_keep` lists the
    layers that there are at all, of `count`; they have the numbers in their names that they had among all, so that
    the weights of the whole stack fit. fairseq numbers them anew when it loads.
    """

    def __init__(
        self, make: Callable[[], nn.Module], count: int, layerdrop: float = 0.0, layers_to_keep: list[int] | None = None
    ):
        super().__init__()
        self.layerdrop = layerdrop
        for number in range(count):
            layer = make()  # those that are left out too, so that the others start as they would beside them
            if layers_to_keep is None or number in layers_to_keep:
                self.add_module(str(number), layer)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, position: int) -> nn.Module:
        """By position among those that there are, from the end where it is negative."""
        return self.all()[position]

    def __iter__(self) -> Iterator[nn.Module]:
        layers = self.all()
        if not (self.training and self.layerdrop):
            return iter(layers)
        taken = (torch.rand(len(layers)) >= self.layerdrop).tolist()
        return iter([layer for layer, is_taken in zip(layers, taken, strict=True) if is_taken])

    def all(self) -> list[nn.Module]:
        """Every layer that there is, whatever is dropped."""
        return list(self.children())
