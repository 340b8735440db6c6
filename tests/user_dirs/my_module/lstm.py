"""An encoder-decoder LSTM with attention (Luong et al., 2015, global dot-product attention)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from app.interfaces import Cache, EncoderOut, Model, Task
from app.ranges import positive, probability


@dataclass
class LSTMConfig:
    embed_dim: int  # width of embeddings
    hidden_size: int  # width of the encoder's and decoder's states
    layers: int  # layers of the encoder and of the decoder
    dropout: float  # after embeddings and features
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        yield from positive(self, "embed_dim", "hidden_size", "layers")
        yield from probability(self, "dropout")
        if self.hidden_size % 2:
            yield f"hidden_size={self.hidden_size}: must be even, a half for each direction of the encoder"


class LSTMCache:
    """The decoder's state after the newest token: hidden and cell, [layers, N, H] each. Nothing of the encoder."""

    state: tuple[Tensor, Tensor] | None = None

    def reorder(self, rows: Tensor) -> None:
        if self.state is not None:
            hidden, cell = self.state
            self.state = (hidden.index_select(1, rows), cell.index_select(1, rows))

    def keep_sentences(self, sentences: Tensor) -> None:
        pass


class LSTM(Model):
    """A bidirectional encoder, and a decoder that attends to the encoder's states from each of its own."""

    def __init__(self, cfg: LSTMConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        self.pad = source.pad
        self.embed_source = nn.Embedding(len(source), cfg.embed_dim, source.pad)
        self.embed_target = nn.Embedding(len(target), cfg.embed_dim, target.pad)
        half = cfg.hidden_size // 2
        self.encoder = nn.LSTM(cfg.embed_dim, half, cfg.layers, batch_first=True, bidirectional=True)
        self.decoder = nn.LSTM(cfg.embed_dim, cfg.hidden_size, cfg.layers, batch_first=True)
        self.query = nn.Linear(cfg.hidden_size, cfg.hidden_size, bias=False)
        self.combine = nn.Linear(2 * cfg.hidden_size, cfg.hidden_size)
        self.dropout = nn.Dropout(cfg.dropout)
        self.output = nn.Linear(cfg.hidden_size, len(target))

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        keep, order = src_tokens.ne(self.pad).sort(dim=1, descending=True, stable=True)  # padding goes to the end
        x = self.dropout(self.embed_source(src_tokens.gather(1, order)))
        packed = pack_padded_sequence(x, src_lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=src_tokens.size(1))
        return EncoderOut(states, keep)

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        x = self.dropout(self.embed_target(prev_output_tokens))
        if isinstance(cache, LSTMCache):
            y, cache.state = self.decoder(x, cache.state)
        else:
            y, _ = self.decoder(x)
        memory, keep = encoder_out.states, encoder_out.keep  # [M, S, H], [M, S]
        query = self.query(y).reshape(memory.size(0), -1, memory.size(2))  # a sentence's rows side by side
        scores = (query @ memory.transpose(1, 2)).masked_fill(~keep[:, None, :], float("-inf"))
        context = (scores.softmax(dim=-1) @ memory).view_as(y)
        features: Tensor = self.dropout(torch.tanh(self.combine(torch.cat([y, context], dim=-1))))
        return features

    def new_cache(self) -> LSTMCache:
        return LSTMCache()

    def project(self, features: Tensor) -> Tensor:
        scores: Tensor = self.output(features)
        return scores

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.output
