"""What a convolution of some width reads: whole rows with zeros around them, or step by step what came before."""

import torch
from torch import Tensor
from torch.nn import functional as F


def centred(x: Tensor, width: int) -> Tensor:
    """[B, T, C] -> [B, T + width - 1, C]: zeros on both sides; the odd one stands at the end."""
    return F.pad(x, (0, 0, (width - 1) // 2, width // 2))


def past(x: Tensor, width: int) -> Tensor:
    """[B, T, C] -> [B, width - 1 + T, C]: zeros before the first, so that no position reads a later one."""
    return F.pad(x, (0, 0, width - 1, 0))


class ConvCache:
    """The inputs that each convolution still reads, [N, width - 1, C] each; nothing of an encoder."""

    def __init__(self) -> None:
        self.windows: dict[int, Tensor] = {}
        self.step = 0

    def slide(self, layer: int, x: Tensor, width: int) -> Tensor:
        """[N, 1, C] -> [N, width, C]: x and the layer's inputs before it."""
        seen = self.windows.get(layer)
        window = past(x, width) if seen is None else torch.cat([seen, x], dim=1)
        self.windows[layer] = window[:, 1:]
        return window

    def reorder(self, rows: Tensor) -> None:
        self.windows = {layer: window.index_select(0, rows) for layer, window in self.windows.items()}

    def keep_sentences(self, sentences: Tensor) -> None:
        pass
