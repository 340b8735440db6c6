"""The encoder-decoder LSTM with attention and input feeding (Luong et al., 2015), with fairseq's parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from app.interfaces import Cache, EncoderOut, Model, Task
from app.modules.dropout import Dropout
from app.modules.lstm_decoder import LSTMCache, LSTMDecoder, LSTMDecoderConfig, init_uniformly
from app.ranges import positive, probability


@dataclass
class LSTMConfig(LSTMDecoderConfig):
    dropout: float  # what the other rates are where they are not given themselves
    encoder_embed_dim: int  # width of the source's embeddings
    encoder_hidden_size: int  # width of the encoder's states, in each direction
    encoder_layers: int  # layers of the encoder; as many as the decoder has, which starts from their last states
    encoder_bidirectional: bool  # read the source in both directions
    encoder_dropout_in: float  # after the source's embeddings
    encoder_dropout_out: float  # after each of the encoder's layers
    decoder_attention: bool  # attend to the encoder's states
    share_all_embeddings: bool  # one matrix for both embeddings and the output projection; needs one vocabulary
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        yield from self.check_decoder()
        yield from positive(self, "encoder_embed_dim", "encoder_hidden_size", "encoder_layers")
        yield from positive(self, "max_source_positions", "max_target_positions")
        yield from probability(self, "dropout", "encoder_dropout_in", "encoder_dropout_out")
        if self.encoder_layers != self.decoder_layers:
            yield f"encoder_layers={self.encoder_layers}: must equal decoder_layers={self.decoder_layers}"
        if self.share_all_embeddings and not self.share_decoder_input_output_embed:
            yield "share_all_embeddings=true: share_decoder_input_output_embed must be true as well"
        if self.share_all_embeddings and self.encoder_embed_dim != self.decoder_embed_dim:
            yield (
                f"share_all_embeddings=true: encoder_embed_dim={self.encoder_embed_dim} and "
                f"decoder_embed_dim={self.decoder_embed_dim} must be equal"
            )


class Encoder(nn.Module):
    """An LSTM over the source."""

    def __init__(self, cfg: LSTMConfig, embed_tokens: nn.Embedding, padding_idx: int):
        super().__init__()
        self.embed_tokens, self.padding_idx = embed_tokens, padding_idx
        self.dropout_in, self.dropout_out = Dropout(cfg.encoder_dropout_in), Dropout(cfg.encoder_dropout_out)
        self.lstm = nn.LSTM(
            cfg.encoder_embed_dim,
            cfg.encoder_hidden_size,
            cfg.encoder_layers,
            batch_first=True,
            dropout=cfg.encoder_dropout_out if cfg.encoder_layers > 1 else 0.0,
            bidirectional=cfg.encoder_bidirectional,
        )

    def forward(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        """States stand at the start of each row, wherever padding stood. `more`: last hidden states and cells."""
        padding, order = src_tokens.eq(self.padding_idx).byte().sort(dim=1, stable=True)
        x = self.dropout_in(self.embed_tokens(src_tokens.gather(1, order)))
        packed = pack_padded_sequence(x, src_lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, (hidden, cell) = self.lstm(packed)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=src_tokens.size(1))
        return EncoderOut(self.dropout_out(states), padding.eq(0), (self._join(hidden), self._join(cell)))

    def _join(self, last: Tensor) -> Tensor:
        """[layers * directions, B, H] -> [B, layers, directions * H]."""
        layers, batch, size = self.lstm.num_layers, *last.shape[1:]
        return last.view(layers, -1, batch, size).permute(2, 0, 1, 3).flatten(2)


class Attention(nn.Module):
    """Global attention whose scores are a bilinear form of both states (Luong et al., 2015, sec. 3.1, `general`)."""

    def __init__(self, dim: int, memory_dim: int):
        super().__init__()
        self.input_proj = nn.Linear(dim, memory_dim, bias=False)
        self.output_proj = nn.Linear(dim + memory_dim, dim, bias=False)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, H], memory [M, S, E], keep [M, S] -> [N, H] and weights [N, S]; rows of one sentence are neighbours."""
        query = self.input_proj(x).view(memory.size(0), -1, memory.size(2))  # [M, N / M, E]
        scores = (query @ memory.transpose(1, 2)).masked_fill(~keep[:, None, :], float("-inf"))
        weights = scores.softmax(dim=-1)  # [M, N / M, S]
        context = (weights @ memory).view(x.size(0), -1)
        return torch.tanh(self.output_proj(torch.cat([context, x], dim=-1))), weights.view(x.size(0), -1)


class Decoder(LSTMDecoder):
    """LSTM cells that start from the encoder's last states; the last output is fed into the first cell."""

    def __init__(self, cfg: LSTMConfig, embed_tokens: nn.Embedding):
        super().__init__(cfg, embed_tokens, feed_dim=cfg.decoder_hidden_size)
        hidden, memory_dim = cfg.decoder_hidden_size, cfg.encoder_hidden_size * (1 + cfg.encoder_bidirectional)
        self.hidden_size = hidden
        self.encoder_hidden_proj = nn.Linear(memory_dim, hidden) if memory_dim != hidden else None
        self.encoder_cell_proj = nn.Linear(memory_dim, hidden) if memory_dim != hidden else None
        self.attention = Attention(hidden, memory_dim) if cfg.decoder_attention else None

    def start(self, encoder_out: EncoderOut, rows: int) -> Tensor:
        """The state before the first token of `rows` hypotheses: [rows, 2L + 1, H]."""
        hidden, cell = encoder_out.more
        if self.encoder_hidden_proj is not None and self.encoder_cell_proj is not None:
            hidden, cell = self.encoder_hidden_proj(hidden), self.encoder_cell_proj(cell)
        state = torch.cat([hidden, cell, hidden.new_zeros(hidden.size(0), 1, self.hidden_size)], dim=1)
        return state.repeat_interleave(rows // state.size(0), dim=0)

    def forward(
        self, tokens: Tensor, encoder_out: EncoderOut, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """tokens [N, T] -> features [N, T, D], attention [N, T, S], the state after them.

        `state` [N, 2L + 1, H]: hidden states of the L layers, then their cells, then the output that is fed in.
        """
        layers = len(self.layers)
        embedded = self.dropout_in(self.embed_tokens(tokens))
        *both, feed = (self.start(encoder_out, tokens.size(0)) if state is None else state).unbind(1)
        hidden, cell = both[:layers], both[layers:]
        outs, attention = [], []
        for x in embedded.unbind(1):
            x = torch.cat([x, feed], dim=-1)
            for i, lstm_cell in enumerate(self.layers):
                hidden[i], cell[i] = lstm_cell(x, (hidden[i], cell[i]))
                x = self.dropout_out(hidden[i])
            feed = hidden[-1]
            if self.attention is not None:
                feed, weights = self.attention(feed, encoder_out.states, encoder_out.keep)
                attention.append(weights)
            feed = self.dropout_out(feed)
            outs.append(feed)
        seen = torch.stack(attention, dim=1) if attention else None
        return self.features(torch.stack(outs, dim=1)), seen, torch.stack([*hidden, *cell, feed], dim=1)


class LSTM(Model):
    """An LSTM reads the source, another writes the target."""

    def __init__(self, cfg: LSTMConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        embed_tokens = nn.Embedding(len(source), cfg.encoder_embed_dim, source.pad)
        self.encoder = Encoder(cfg, embed_tokens, source.pad)
        if not cfg.share_all_embeddings:
            embed_tokens = nn.Embedding(len(target), cfg.decoder_embed_dim, target.pad)
        self.decoder = Decoder(cfg, embed_tokens)
        init_uniformly(self)

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        out: EncoderOut = self.encoder(src_tokens, src_lengths)
        return out

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        state = cache.state if isinstance(cache, LSTMCache) else None
        features: Tensor
        features, _, state = self.decoder(prev_output_tokens, encoder_out, state)
        if isinstance(cache, LSTMCache):
            cache.state = state
        return features

    def new_cache(self) -> LSTMCache:
        return LSTMCache()

    def project(self, features: Tensor) -> Tensor:
        return self.decoder.project(features)

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.decoder.fc_out

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor | None:
        attention: Tensor | None = self.decoder(prev_output_tokens, encoder_out)[1]
        return attention
