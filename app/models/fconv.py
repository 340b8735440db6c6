"""The encoder-decoder of convolutions (Gehring et al., 2017), with fairseq's parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, Model, Task
from app.modules.convolution_windows import ConvCache
from app.modules.gated_convolutions import (
    SQRT_HALF,
    ConvDecoder,
    ConvEncoder,
    ConvPositions,
    check_layers,
    conv_embedding,
)
from app.modules.weight_norm import WeightNormLinear
from app.ranges import positive, probability


@dataclass
class FConvConfig:
    """A layer is [channels, width] or [channels, width, layers back that its residual comes from (1; 0: none)].

    fairseq's `max_source_positions` and `max_target_positions` are the rows of its tables, pad + 1 of which no token
    gets: 1024 there are 1022 here.
    """

    encoder_embed_dim: int  # width of the encoder's embeddings and output
    encoder_layers: list[list[int]]  # the encoder's convolutions
    decoder_embed_dim: int  # width of the decoder's embeddings; the encoder's, because attention adds and compares them
    decoder_layers: list[list[int]]  # the decoder's convolutions
    decoder_out_embed_dim: int  # width of the features that are projected to the vocabulary
    decoder_attention: list[bool] | None  # whether each decoder layer attends to the encoder; null: all do
    share_input_output_embed: bool  # one matrix for the decoder's embeddings and output projection
    dropout: float  # before each convolution, and on embeddings and features
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        yield from positive(self, "encoder_embed_dim", "decoder_embed_dim", "decoder_out_embed_dim")
        yield from positive(self, "max_source_positions", "max_target_positions")
        yield from probability(self, "dropout")
        yield from check_layers("encoder_layers", self.encoder_layers)
        yield from check_layers("decoder_layers", self.decoder_layers)
        if self.encoder_embed_dim != self.decoder_embed_dim:
            yield f"decoder_embed_dim={self.decoder_embed_dim}: must equal encoder_embed_dim={self.encoder_embed_dim}"
        if self.share_input_output_embed and self.decoder_embed_dim != self.decoder_out_embed_dim:
            yield (
                f"share_input_output_embed=true: decoder_embed_dim={self.decoder_embed_dim} and "
                f"decoder_out_embed_dim={self.decoder_out_embed_dim} must be equal"
            )
        if self.decoder_attention is not None and len(self.decoder_attention) != len(self.decoder_layers):
            yield (
                f"decoder_attention={self.decoder_attention}: must have one entry for each of the "
                f"{len(self.decoder_layers)} decoder_layers, or be null"
            )


class Attention(nn.Module):
    """Dot-product attention from a decoder layer and the target's embeddings (Gehring et al., 2017, sec. 3.3)."""

    def __init__(self, channels: int, embed_dim: int):
        super().__init__()
        self.in_projection = WeightNormLinear(channels, embed_dim)
        self.out_projection = WeightNormLinear(embed_dim, channels)

    def forward(self, x: Tensor, embedded: Tensor, encoder_out: EncoderOut) -> tuple[Tensor, Tensor]:
        """x [N, T, C], embedded [N, T, E] -> [N, T, C] and weights [N, T, S]. N may be a multiple of the sentences."""
        keys, keep, (values,) = encoder_out
        query = (self.in_projection(x) + embedded) * SQRT_HALF
        scores = query.view(keys.size(0), -1, keys.size(2)) @ keys.transpose(1, 2)  # rows of a sentence side by side
        weights = scores.masked_fill(~keep[:, None, :], float("-inf")).softmax(dim=-1)
        sizes = keep.sum(1)[:, None, None].to(x.dtype)
        context = weights @ values * sizes.sqrt()  # a mean of n values varies less by sqrt(n)
        out = (self.out_projection(context.view_as(embedded)) + x) * SQRT_HALF
        return out, weights.view(*x.shape[:2], -1)


class Decoder(ConvDecoder):
    """Causal convolutions with positions, each of which may attend to the encoder."""

    def __init__(self, cfg: FConvConfig, embed_tokens: nn.Embedding):
        super().__init__(
            embed_tokens,
            cfg.decoder_layers,
            cfg.dropout,
            cfg.decoder_out_embed_dim,
            cfg.share_input_output_embed,
            adaptive_softmax_cutoff=None,
            adaptive_softmax_dropout=0.0,
        )
        self.embed_positions = ConvPositions(cfg.max_target_positions, embed_tokens)
        attends = cfg.decoder_attention or [True] * len(cfg.decoder_layers)
        layers = [(str(i), layer[0]) for i, layer in enumerate(cfg.decoder_layers) if attends[i]]
        self.attention = nn.ModuleDict({i: Attention(channels, cfg.decoder_embed_dim) for i, channels in layers})

    def forward(
        self, tokens: Tensor, encoder_out: EncoderOut, cache: ConvCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """[N, T] -> features [N, T, D], and each attention's weights [N, T, S]."""
        placed = self.embed_positions(tokens, None if cache is None else cache.step)
        embedded = self.dropout(self.embed_tokens(tokens) + placed)
        seen: list[Tensor] = []

        def attend(layer: int, x: Tensor) -> Tensor:
            if str(layer) in self.attention:
                x, weights = self.attention[str(layer)](x, embedded, encoder_out)
                seen.append(weights)
            return x

        return self.features(embedded, attend, cache), seen


class FConv(Model):
    """Convolutions read the source, others write the target."""

    def __init__(self, cfg: FConvConfig, task: Task):
        super().__init__(cfg, task)
        source, target = task.source_vocabulary, task.target_vocabulary
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        embed_target = conv_embedding(len(target), cfg.decoder_embed_dim, target.pad)
        self.decoder = Decoder(cfg, embed_target)
        embed_source = conv_embedding(len(source), cfg.encoder_embed_dim, source.pad)
        readers = len(self.decoder.attention)
        self.encoder = ConvEncoder(embed_source, cfg.encoder_layers, cfg.dropout, cfg.max_source_positions, readers)

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        """`states` are the keys of attention; `more` holds its values."""
        keys, values, keep = self.encoder(src_tokens)
        return EncoderOut(keys, keep, (values,))

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        features: Tensor = self.decoder(prev_output_tokens, encoder_out, cache)[0]
        return features

    def new_cache(self) -> ConvCache:
        return ConvCache()

    def project(self, features: Tensor) -> Tensor:
        return self.decoder.project(features)

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor | None:
        """The mean over the layers that attend; fairseq divides their sum by the number of all layers."""
        seen = self.decoder(prev_output_tokens, encoder_out)[1]
        return torch.stack(seen).mean(dim=0) if seen else None
