"""The LSTM language model (Sundermeyer et al., 2012), with fairseq's options and parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, LanguageModel, Task
from app.modules.lstm_decoder import LSTMCache, LSTMDecoder, LSTMDecoderConfig, init_uniformly
from app.ranges import positive, probability


@dataclass
class LSTMLMConfig(LSTMDecoderConfig):
    dropout: float  # what the other rates are where they are not given themselves
    residuals: bool  # add what a layer's state was one token before to what the next layer reads
    max_target_positions: int  # longest row

    def check(self) -> Iterator[str]:
        yield from self.check_decoder()
        yield from positive(self, "max_target_positions")
        yield from probability(self, "dropout")


class Decoder(LSTMDecoder):
    """Layers one after the other, each over the whole row."""

    def __init__(self, cfg: LSTMLMConfig, embed_tokens: nn.Embedding):
        super().__init__(cfg, embed_tokens)
        self.hidden_size, self.residuals = cfg.decoder_hidden_size, cfg.residuals

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """tokens [N, T] -> features [N, T, D] and the state after them: hidden states, then cells, [N, 2L, H]."""
        x = self.dropout_in(self.embed_tokens(tokens))
        if state is None:
            state = x.new_zeros(len(tokens), 2 * len(self.layers), self.hidden_size)
        before = state.transpose(0, 1).contiguous()  # [2L, N, H]
        hidden, cells, out = [], [], x
        for i, cell in enumerate(self.layers):
            start = before[i : i + 1], before[len(self.layers) + i :][:1]
            assert isinstance(cell, nn.LSTMCell)
            weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            out, last, last_cell = torch.lstm(x, start, weights, True, 1, 0.0, self.training, False, True)
            hidden.append(last[0])
            cells.append(last_cell[0])
            x = self.dropout_out(out)
            if self.residuals:
                x = x + torch.cat([before[i, :, None], out[:, :-1]], dim=1)
        return self.features(self.dropout_out(out)), torch.stack([*hidden, *cells], dim=1)


class LSTMLM(LanguageModel):
    """An LSTM over the words so far."""

    def __init__(self, cfg: LSTMLMConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_target_positions, cfg.max_target_positions)
        vocabulary = task.target_vocabulary
        embed_tokens = nn.Embedding(len(vocabulary), cfg.decoder_embed_dim, vocabulary.pad)
        self.decoder = Decoder(cfg, embed_tokens)
        init_uniformly(self)

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        state = cache.state if isinstance(cache, LSTMCache) else None
        features: Tensor
        features, state = self.decoder(prev_output_tokens, state)
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
