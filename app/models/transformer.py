"""The encoder-decoder Transformer (Vaswani et al., 2017), with fairseq's options and parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, Model, Task
from app.modules.embedding import EmbeddingConfig, token_embedding
from app.modules.encoder_decoder import SIDES, EncoderDecoderConfig
from app.modules.transformer_decoder import AdaptiveSoftmaxConfig, Decoder, DecoderConfig, TransformerCache
from app.modules.transformer_encoder import EncoderConfig, TransformerEncoder
from app.modules.transformer_layer import NORMS, LayerConfig
from app.ranges import at_least, layer_drop_faults, one_of, probability, rising_cutoffs


@dataclass
class TransformerConfig(EncoderDecoderConfig):
    """Fields that fairseq does not have say so."""

    no_decoder_final_norm: bool  # pre-norm decoder without the layer norm at its end
    no_scale_embedding: bool  # do not multiply embeddings by the square root of the width
    layernorm_embedding: bool  # layer norm after the embeddings
    adaptive_softmax_cutoff: list[int] | None  # words up to each cutoff form a cluster; null: an ordinary softmax
    adaptive_softmax_dropout: float  # inside the adaptive softmax
    adaptive_softmax_factor: float  # each tail cluster's width is divided by a further power of this
    no_cross_attention: bool  # a decoder without attention to the encoder
    cross_self_attention: bool  # the decoder's self-attention sees the encoder's states too
    encoder_layerdrop: float  # probability of each encoder layer to be left out of a pass in training
    encoder_layers_to_keep: list[int] | None  # the encoder layers that there are, from 0; null: all
    decoder_layerdrop: float  # probability of each decoder layer to be left out of a pass in training
    decoder_layers_to_keep: list[int] | None  # the decoder layers that there are, from 0; null: all
    norm_fn: str  # which norm: layer, or rms; not in fairseq
    rotary_pos: bool  # rotary positions in the self-attentions; not in fairseq
    encoder_kv_heads: int | None  # heads of keys and values, shared by groups of heads; null: one each; not in fairseq
    decoder_kv_heads: int | None  # the same in the decoder

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from probability(self, "adaptive_softmax_dropout")
        yield from at_least(self, 1, "adaptive_softmax_factor")
        yield from rising_cutoffs(self, "adaptive_softmax_cutoff")
        yield from one_of(self, "norm_fn", *NORMS)
        for side in SIDES:
            yield from layer_drop_faults(self, side)
            if getattr(self, f"{side}_attention_heads") > 0:
                yield from (fault.replace("kv_heads", f"{side}_kv_heads", 1) for fault in self.layer(side).check())
        if self.cross_self_attention and self.encoder_embed_dim != self.decoder_embed_dim:
            yield "cross_self_attention=true: encoder_embed_dim and decoder_embed_dim must be equal"
        if self.cross_self_attention and self.rotary_pos:
            yield "cross_self_attention=true: source and target have no distance; set rotary_pos=false"

    def embedding(self, side: str) -> EmbeddingConfig:
        options = {"no_scale_embedding": self.no_scale_embedding, "layernorm_embedding": self.layernorm_embedding}
        return replace(super().embedding(side), **options)

    def layer(self, side: str) -> LayerConfig:
        kv_heads = getattr(self, f"{side}_kv_heads")
        return replace(super().layer(side), norm_fn=self.norm_fn, rotary_pos=self.rotary_pos, kv_heads=kv_heads)

    def encoder(self) -> EncoderConfig:
        kept = self.encoder_layers_to_keep
        return replace(super().encoder(), layerdrop=self.encoder_layerdrop, layers_to_keep=kept)

    def decoder(self) -> DecoderConfig:
        adaptive = None
        if self.adaptive_softmax_cutoff is not None:
            adaptive = AdaptiveSoftmaxConfig(
                self.adaptive_softmax_cutoff,
                self.adaptive_softmax_dropout,
                self.adaptive_softmax_factor,
                tie_weights=False,
                tie_proj=False,
            )
        return DecoderConfig(
            embedding=self.embedding("decoder"),
            layer=self.layer("decoder"),
            layers=self.decoder_layers,
            output_dim=self.decoder_output_dim,
            final_norm=self.decoder_normalize_before and not self.no_decoder_final_norm,
            share_input_output=self.shares_output,
            adaptive_softmax=adaptive,
            memory_dim=None if self.no_cross_attention else self.encoder_embed_dim,
            cross_self_attention=self.cross_self_attention,
            layerdrop=self.decoder_layerdrop,
            layers_to_keep=self.decoder_layers_to_keep,
        )


class Encoder(TransformerEncoder):
    """The encoder, as `Transformer` makes it from its own config."""

    def __init__(self, cfg: TransformerConfig, embed_tokens: nn.Embedding):
        super().__init__(cfg.encoder(), embed_tokens)

    def forward(self, src_tokens: Tensor) -> EncoderOut:
        return EncoderOut(*self.states(src_tokens))


class Transformer(Model):
    """Encoder and decoder. All named sizes of it are YAML files that start from `conf/model/transformer.yaml`."""

    def __init__(self, cfg: TransformerConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        embed_tokens = token_embedding(len(source), cfg.encoder_embed_dim, source.pad)
        self.encoder = Encoder(cfg, embed_tokens)
        if not cfg.share_all_embeddings:
            embed_tokens = token_embedding(len(target), cfg.decoder_embed_dim, target.pad)
        self.decoder = Decoder(cfg.decoder(), embed_tokens, len(target))

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        out: EncoderOut = self.encoder(src_tokens)
        return out

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        features: Tensor = self.decoder(prev_output_tokens, encoder_out, cache)
        return features

    def new_cache(self) -> TransformerCache:
        return self.decoder.new_cache()

    def project(self, features: Tensor) -> Tensor:
        return self.decoder.project(features)

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.decoder.output_projection

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor | None:
        if self.cfg.no_cross_attention:
            return None
        return self.decoder.with_attention(prev_output_tokens, encoder_out)[1]
