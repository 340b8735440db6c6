"""MyModel: say here what the model is, and where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, Model, Task
from app.ranges import positive, probability


@dataclass
class MyModelConfig:
    embed_dim: int  # width of embeddings and states
    dropout: float  # after embeddings and on features
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        yield from positive(self, "embed_dim")
        yield from probability(self, "dropout")


class MyModelCache:
    """The decoder's state after the newest token, [1, N, D]."""

    state: Tensor | None = None

    def reorder(self, rows: Tensor) -> None:
        self.state = None if self.state is None else self.state.index_select(1, rows)

    def keep_sentences(self, sentences: Tensor) -> None:
        """There is nothing of the encoder in it."""


class MyModel(Model):
    """The mean of the source's embeddings, and a GRU that sees it at every target position."""

    def __init__(self, cfg: MyModelConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        self.pad = source.pad
        self.embed_source = nn.Embedding(len(source), cfg.embed_dim, source.pad)
        self.embed_target = nn.Embedding(len(target), cfg.embed_dim, target.pad)
        self.decoder = nn.GRU(2 * cfg.embed_dim, cfg.embed_dim, batch_first=True)
        self.dropout = nn.Dropout(cfg.dropout)
        self.output = nn.Linear(cfg.embed_dim, len(target))

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        return EncoderOut(self.dropout(self.embed_source(src_tokens)), src_tokens.ne(self.pad))

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        keep = encoder_out.keep.unsqueeze(-1)  # [M, S, 1]
        mean = (encoder_out.states * keep).sum(1) / keep.sum(1)  # [M, D]
        rows, length = prev_output_tokens.shape  # a sentence's hypotheses stand side by side
        context = mean.repeat_interleave(rows // len(mean), dim=0)[:, None].expand(-1, length, -1)  # [B, T, D]
        x = torch.cat([self.dropout(self.embed_target(prev_output_tokens)), context], dim=-1)
        if isinstance(cache, MyModelCache):
            x, cache.state = self.decoder(x, cache.state)
        else:
            x, _ = self.decoder(x)
        features: Tensor = self.dropout(x)
        return features

    def new_cache(self) -> MyModelCache:
        return MyModelCache()

    def project(self, features: Tensor) -> Tensor:
        scores: Tensor = self.output(features)
        return scores
