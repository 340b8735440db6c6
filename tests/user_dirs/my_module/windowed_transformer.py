"""A Transformer with one more hyper-parameter."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.interfaces import EncoderOut, Task
from app.models.transformer import Encoder, Transformer, TransformerConfig
from app.ranges import positive


@dataclass
class WindowedTransformerConfig(TransformerConfig):
    window: int  # tokens that a source token sees to either side

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "window")


class WindowedEncoder(Encoder):
    """An encoder whose tokens see their neighbours only."""

    window: int

    def forward(self, src_tokens: Tensor) -> EncoderOut:
        keep = src_tokens.ne(self.padding_idx)  # [B, S]
        place = torch.arange(src_tokens.size(1), device=src_tokens.device)
        near = (place[:, None] - place).abs() <= self.window  # [S, S]
        mask = near & keep[:, None, None, :] | torch.eye(len(place), dtype=torch.bool, device=place.device)
        x = self.embed(src_tokens)
        for layer in self.layers:
            x = layer(x, mask)
        return EncoderOut(x if self.layer_norm is None else self.layer_norm(x), keep)


class WindowedTransformer(Transformer):
    """A Transformer whose source tokens see `window` neighbours to either side, and themselves."""

    def __init__(self, cfg: WindowedTransformerConfig, task: Task):
        super().__init__(cfg, task)
        self.encoder = WindowedEncoder(cfg, self.encoder.embed_tokens)
        self.encoder.window = cfg.window
