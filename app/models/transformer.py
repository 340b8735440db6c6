"""The encoder-decoder Transformer (Vaswani et al., 2017), with fairseq's options and parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, Model, Task
from app.modules.activations import ACTIVATIONS
from app.modules.adaptive_softmax import AdaptiveSoftmax
from app.modules.attention import KeyValues
from app.modules.dropout import Dropout
from app.modules.positions import LearnedPositions, SinusoidalPositions, make_positions
from app.modules.transformer_layer import DecoderLayer, EncoderLayer, LayerConfig
from app.ranges import at_least, divides, one_of, positive, probability


@dataclass
class TransformerConfig:
    """fairseq's names, flat, so that its users need not learn new ones."""

    encoder_layers: int  # layers of the encoder
    encoder_embed_dim: int  # width of the encoder
    encoder_ffn_embed_dim: int  # width inside the encoder's feed-forward parts
    encoder_attention_heads: int  # heads of each attention in the encoder
    encoder_normalize_before: bool  # pre-norm encoder: layer norm before each part, and one at the end
    encoder_learned_pos: bool  # learned rather than sinusoidal positions in the encoder
    decoder_layers: int  # layers of the decoder
    decoder_embed_dim: int  # width of the decoder
    decoder_output_dim: int  # width of the features that are projected to the vocabulary
    decoder_ffn_embed_dim: int  # width inside the decoder's feed-forward parts
    decoder_attention_heads: int  # heads of each attention in the decoder
    decoder_normalize_before: bool  # pre-norm decoder
    decoder_learned_pos: bool  # learned rather than sinusoidal positions in the decoder
    no_decoder_final_norm: bool  # pre-norm decoder without the layer norm at its end
    share_decoder_input_output_embed: bool  # one matrix for the decoder's embeddings and output projection
    share_all_embeddings: bool  # one matrix for both embeddings and the output projection; needs one vocabulary
    no_token_positional_embeddings: bool  # no positions at all
    no_scale_embedding: bool  # do not multiply embeddings by the square root of the width
    layernorm_embedding: bool  # layer norm after the embeddings
    activation_fn: str  # of the feed-forward parts
    dropout: float  # after embeddings and after each part of a layer
    attention_dropout: float  # on attention weights
    activation_dropout: float  # inside feed-forward parts
    adaptive_softmax_cutoff: list[int] | None  # words up to each cutoff form a cluster; null: an ordinary softmax
    adaptive_softmax_dropout: float  # inside the adaptive softmax
    adaptive_softmax_factor: float  # each tail cluster's width is divided by a further power of this
    no_cross_attention: bool  # a decoder without attention to the encoder
    cross_self_attention: bool  # the decoder's self-attention sees the encoder's states too
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        for side in ("encoder", "decoder"):
            yield from positive(self, f"{side}_embed_dim", f"{side}_ffn_embed_dim", f"{side}_attention_heads")
            yield from positive(self, f"{side}_layers")
            yield from divides(self, f"{side}_attention_heads", f"{side}_embed_dim")
        yield from positive(self, "decoder_output_dim", "max_source_positions", "max_target_positions")
        yield from probability(self, "dropout", "attention_dropout", "activation_dropout", "adaptive_softmax_dropout")
        yield from at_least(self, 1, "adaptive_softmax_factor")
        yield from one_of(self, "activation_fn", *ACTIVATIONS)
        yield from self._check_sharing()
        cutoff = self.adaptive_softmax_cutoff
        if cutoff is not None and (not cutoff or min(cutoff) <= 0 or sorted(set(cutoff)) != cutoff):
            yield f"adaptive_softmax_cutoff={cutoff}: must be rising numbers of words, such as [2000,10000]"

    def _check_sharing(self) -> Iterator[str]:
        if self.share_all_embeddings and self.encoder_embed_dim != self.decoder_embed_dim:
            yield (
                f"share_all_embeddings=true: encoder_embed_dim={self.encoder_embed_dim} and "
                f"decoder_embed_dim={self.decoder_embed_dim} must be equal"
            )
        shared = self.share_all_embeddings or self.share_decoder_input_output_embed
        if shared and self.decoder_output_dim != self.decoder_embed_dim:
            yield (
                f"decoder_output_dim={self.decoder_output_dim}: must equal decoder_embed_dim="
                f"{self.decoder_embed_dim} when the output projection is shared with the embeddings"
            )
        if self.cross_self_attention and self.encoder_embed_dim != self.decoder_embed_dim:
            yield "cross_self_attention=true: encoder_embed_dim and decoder_embed_dim must be equal"

    def layer(self, side: str) -> LayerConfig:
        """The layers of `side`, encoder or decoder."""
        return LayerConfig(
            embed_dim=getattr(self, f"{side}_embed_dim"),
            ffn_embed_dim=getattr(self, f"{side}_ffn_embed_dim"),
            attention_heads=getattr(self, f"{side}_attention_heads"),
            normalize_before=getattr(self, f"{side}_normalize_before"),
            activation_fn=self.activation_fn,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.activation_dropout,
        )


class Embedding(nn.Module):
    """Tokens to vectors: embedding, scale, position, layer norm, dropout, as one side of a Transformer needs them."""

    embed_positions: nn.Module | None

    def __init__(self, cfg: TransformerConfig, side: str, embed_tokens: nn.Embedding):
        super().__init__()
        dim, padding_idx = embed_tokens.embedding_dim, embed_tokens.padding_idx
        assert padding_idx is not None
        self.padding_idx = padding_idx
        self.embed_tokens = embed_tokens
        self.scale = 1.0 if cfg.no_scale_embedding else dim**0.5
        max_positions = cfg.max_source_positions if side == "encoder" else cfg.max_target_positions
        learned = cfg.encoder_learned_pos if side == "encoder" else cfg.decoder_learned_pos
        self.embed_positions = None
        if not cfg.no_token_positional_embeddings:
            kind = LearnedPositions if learned else SinusoidalPositions
            self.embed_positions = kind(max_positions, dim, padding_idx)
        self.layernorm_embedding = nn.LayerNorm(dim) if cfg.layernorm_embedding else None
        self.dropout = Dropout(cfg.dropout)

    def embed(self, tokens: Tensor, step: int | None = None) -> Tensor:
        """[B, T] -> [B, T, D]. `step`: all tokens stand at this position (from 0), as in decoding with a cache."""
        x: Tensor = self.embed_tokens(tokens) * self.scale
        if self.embed_positions is not None:
            if step is None:
                positions = make_positions(tokens, self.padding_idx)
            else:
                positions = torch.full_like(tokens, self.padding_idx + 1 + step)
            x = x + self.embed_positions(positions)
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        dropped: Tensor = self.dropout(x)
        return dropped


class Encoder(Embedding):
    """A stack of encoder layers."""

    def __init__(self, cfg: TransformerConfig, embed_tokens: nn.Embedding):
        super().__init__(cfg, "encoder", embed_tokens)
        self.layers = nn.ModuleList(EncoderLayer(cfg.layer("encoder")) for _ in range(cfg.encoder_layers))
        self.layer_norm = nn.LayerNorm(cfg.encoder_embed_dim) if cfg.encoder_normalize_before else None

    def forward(self, src_tokens: Tensor) -> EncoderOut:
        keep = src_tokens.ne(self.padding_idx)  # [B, S]
        x = self.embed(src_tokens)
        mask = _mask(keep)
        for layer in self.layers:
            x = layer(x, mask)
        return EncoderOut(x if self.layer_norm is None else self.layer_norm(x), keep)


class TransformerCache:
    """For each decoder layer, the keys and values of its self-attention and of its attention to the encoder."""

    def __init__(self, layers: int):
        self.layers = [(KeyValues(), KeyValues()) for _ in range(layers)]
        self.step = 0

    def reorder(self, rows: Tensor) -> None:
        for own, _ in self.layers:
            own.select(rows)

    def keep_sentences(self, sentences: Tensor) -> None:
        for _, encoder in self.layers:
            encoder.select(sentences)


class Decoder(Embedding):
    """A stack of decoder layers, from tokens to features and from features to scores."""

    def __init__(self, cfg: TransformerConfig, embed_tokens: nn.Embedding):
        super().__init__(cfg, "decoder", embed_tokens)
        dim, output_dim = cfg.decoder_embed_dim, cfg.decoder_output_dim
        self.layers = nn.ModuleList(
            DecoderLayer(
                cfg.layer("decoder"), cfg.encoder_embed_dim, not cfg.no_cross_attention, cfg.cross_self_attention
            )
            for _ in range(cfg.decoder_layers)
        )
        final_norm = cfg.decoder_normalize_before and not cfg.no_decoder_final_norm
        self.layer_norm = nn.LayerNorm(dim) if final_norm else None
        self.project_out_dim = nn.Linear(dim, output_dim, bias=False) if output_dim != dim else None
        if self.project_out_dim is not None:
            nn.init.xavier_uniform_(self.project_out_dim.weight)
        self.adaptive_softmax: AdaptiveSoftmax | None = None
        self.output_projection: nn.Linear | None = None
        if cfg.adaptive_softmax_cutoff is not None:
            self.adaptive_softmax = AdaptiveSoftmax(
                embed_tokens.num_embeddings,
                output_dim,
                cfg.adaptive_softmax_cutoff,
                cfg.adaptive_softmax_dropout,
                cfg.adaptive_softmax_factor,
            )
        else:
            self.output_projection = nn.Linear(output_dim, embed_tokens.num_embeddings, bias=False)
            nn.init.normal_(self.output_projection.weight, std=output_dim**-0.5)
            if cfg.share_decoder_input_output_embed or cfg.share_all_embeddings:
                self.output_projection.weight = embed_tokens.weight

    def forward(self, tokens: Tensor, encoder_out: EncoderOut | None, cache: TransformerCache | None = None) -> Tensor:
        x, memory, mask = self._inputs(tokens, encoder_out, None if cache is None else cache.step)
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, mask, None if cache is None else cache.layers[i])
        if cache is not None:
            cache.step += 1
        x = x if self.layer_norm is None else self.layer_norm(x)
        return x if self.project_out_dim is None else self.project_out_dim(x)

    def cross_attention(self, tokens: Tensor, encoder_out: EncoderOut) -> Tensor:
        """The last layer's attention to the encoder, mean over heads: [B, T, S]."""
        x, memory, mask = self._inputs(tokens, encoder_out, None)
        assert memory is not None
        for layer in self.layers[:-1]:
            x = layer(x, memory, mask)
        last = self.layers[-1]
        assert isinstance(last, DecoderLayer)
        return last.cross_attention(x, memory, mask)

    def _inputs(
        self, tokens: Tensor, encoder_out: EncoderOut | None, step: int | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x = self.embed(tokens, step)
        if encoder_out is None:
            return x, None, None
        return x, encoder_out.states, _mask(encoder_out.keep)


class Transformer(Model):
    """Encoder and decoder. All named sizes of it are YAML files that start from `conf/model/transformer.yaml`."""

    def __init__(self, cfg: TransformerConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        embed_tokens = _embedding(len(source), cfg.encoder_embed_dim, source.pad)
        self.encoder = Encoder(cfg, embed_tokens)
        if not cfg.share_all_embeddings:
            embed_tokens = _embedding(len(target), cfg.decoder_embed_dim, target.pad)
        self.decoder = Decoder(cfg, embed_tokens)

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        out: EncoderOut = self.encoder(src_tokens)
        return out

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        features: Tensor = self.decoder(prev_output_tokens, encoder_out, cache)
        return features

    def new_cache(self) -> TransformerCache:
        return TransformerCache(len(self.decoder.layers))

    def project(self, features: Tensor) -> Tensor:
        decoder = self.decoder
        scores: Tensor = (decoder.adaptive_softmax or decoder.output_projection)(features)  # type: ignore[misc]
        return scores

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.decoder.output_projection

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor | None:
        if self.cfg.no_cross_attention:
            return None
        return self.decoder.cross_attention(prev_output_tokens, encoder_out)


def _mask(keep: Tensor) -> Tensor | None:
    """[B, S] -> [B, 1, 1, S]; None, which is quicker, where nothing is padding and asking costs no synchronisation."""
    return None if keep.device.type == "cpu" and bool(keep.all()) else keep[:, None, None, :]


def _embedding(size: int, dim: int, padding_idx: int) -> nn.Embedding:
    embedding = nn.Embedding(size, dim, padding_idx)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    nn.init.zeros_(embedding.weight[padding_idx])
    return embedding
