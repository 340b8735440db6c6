"""The decoder-only Transformer: a language model, with fairseq's options and parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, LanguageModel, Task
from app.modules.activations import ACTIVATIONS, GATED
from app.modules.adaptive_input import AdaptiveInput
from app.modules.embedding import EmbeddingConfig, token_embedding
from app.modules.transformer_decoder import AdaptiveSoftmaxConfig, Decoder, DecoderConfig, TransformerCache
from app.modules.transformer_layer import NORMS, LayerConfig
from app.ranges import at_least, divides, layer_drop_faults, one_of, positive, probability, rising_cutoffs


@dataclass
class TransformerLMConfig:
    """fairseq's names, flat. In fairseq input and output width are 512 unless given; here they follow the decoder's."""

    decoder_layers: int  # layers
    decoder_embed_dim: int  # width
    decoder_input_dim: int  # width of the embeddings, which are projected to the layers' where it differs
    decoder_output_dim: int  # width of the features that are projected to the vocabulary
    decoder_ffn_embed_dim: int  # width inside the feed-forward parts
    decoder_attention_heads: int  # heads of each attention
    decoder_normalize_before: bool  # pre-norm: layer norm before each part, and one at the end
    no_decoder_final_norm: bool  # pre-norm without the layer norm at the end
    decoder_learned_pos: bool  # learned rather than sinusoidal positions
    no_token_positional_embeddings: bool  # no positions at all
    no_scale_embedding: bool  # do not multiply embeddings by the square root of the width
    layernorm_embedding: bool  # layer norm after the embeddings
    share_decoder_input_output_embed: bool  # one matrix for embeddings and output projection
    activation_fn: str  # of the feed-forward parts
    dropout: float  # after embeddings and after each part of a layer
    attention_dropout: float  # on attention weights
    activation_dropout: float  # inside feed-forward parts
    adaptive_input: bool  # less width for rarer words: embeddings in bands
    adaptive_input_cutoff: list[int] | None  # words up to each cutoff form a band
    adaptive_input_factor: float  # each band's width is the one before divided by this
    adaptive_softmax_cutoff: list[int] | None  # words up to each cutoff form a cluster; null: an ordinary softmax
    adaptive_softmax_dropout: float  # inside the adaptive softmax
    adaptive_softmax_factor: float  # each tail cluster's width is divided by a further power of this
    tie_adaptive_weights: bool  # the adaptive softmax has the adaptive input's vectors
    tie_adaptive_proj: bool  # and its projections
    scale_fc: bool  # NormFormer: layer norm inside the feed-forward parts
    scale_attn: bool  # NormFormer: layer norm after the self-attention
    scale_heads: bool  # NormFormer: a learned factor for each head
    scale_resids: bool  # NormFormer: a learned factor for each element of the feed-forward's residual
    decoder_layerdrop: float  # probability of each layer to be left out of a pass in training
    decoder_layers_to_keep: list[int] | None  # the layers that there are, from 0; null: all
    norm_fn: str  # which norm: layer, or rms; not in fairseq
    rotary_pos: bool  # rotary positions in the self-attention; not in fairseq
    decoder_kv_heads: int | None  # heads of keys and values, shared by groups of heads; null: one each; not in fairseq
    max_target_positions: int  # longest row

    def check(self) -> Iterator[str]:
        yield from positive(self, "decoder_layers", "decoder_embed_dim", "decoder_input_dim", "decoder_output_dim")
        yield from positive(self, "decoder_ffn_embed_dim", "decoder_attention_heads", "max_target_positions")
        yield from divides(self, "decoder_attention_heads", "decoder_embed_dim")
        yield from probability(self, "dropout", "attention_dropout", "activation_dropout", "adaptive_softmax_dropout")
        yield from at_least(self, 1, "adaptive_input_factor", "adaptive_softmax_factor")
        yield from one_of(self, "activation_fn", *ACTIVATIONS, *GATED)
        yield from one_of(self, "norm_fn", *NORMS)
        yield from layer_drop_faults(self, "decoder")
        yield from rising_cutoffs(self, "adaptive_input_cutoff", "adaptive_softmax_cutoff")
        yield from self._check_sharing()
        if self.decoder_attention_heads > 0:
            yield from (fault.replace("kv_heads", "decoder_kv_heads", 1) for fault in self.layer().check())

    def _check_sharing(self) -> Iterator[str]:
        if self.adaptive_input and self.adaptive_input_cutoff is None:
            yield "adaptive_input=true: needs adaptive_input_cutoff, such as [20000,60000]"
        if self.share_decoder_input_output_embed:
            if self.adaptive_input or self.adaptive_softmax_cutoff is not None:
                yield "share_decoder_input_output_embed=true: with adaptive parts, use tie_adaptive_weights"
            if self.decoder_input_dim != self.decoder_output_dim:
                yield (
                    f"share_decoder_input_output_embed=true: decoder_input_dim={self.decoder_input_dim} and "
                    f"decoder_output_dim={self.decoder_output_dim} must be equal"
                )
        if self.tie_adaptive_proj and not self.tie_adaptive_weights:
            yield "tie_adaptive_proj=true: needs tie_adaptive_weights=true"
        if self.tie_adaptive_weights:
            if not self.adaptive_input or self.adaptive_softmax_cutoff is None:
                yield "tie_adaptive_weights=true: needs adaptive_input=true and adaptive_softmax_cutoff"
            for ours, other in (
                ("adaptive_softmax_cutoff", "adaptive_input_cutoff"),
                ("adaptive_softmax_factor", "adaptive_input_factor"),
                ("decoder_output_dim", "decoder_input_dim"),
            ):
                if getattr(self, ours) != getattr(self, other):
                    yield f"{ours}={getattr(self, ours)}: must equal {other}={getattr(self, other)} when they are tied"
            if self.decoder_output_dim != self.decoder_embed_dim:
                yield f"decoder_output_dim={self.decoder_output_dim}: must equal decoder_embed_dim when they are tied"

    def decoder(self) -> DecoderConfig:
        return DecoderConfig(
            embedding=EmbeddingConfig(
                dim=self.decoder_embed_dim,
                max_positions=self.max_target_positions,
                learned_pos=self.decoder_learned_pos,
                no_token_positional_embeddings=self.no_token_positional_embeddings,
                no_scale_embedding=self.no_scale_embedding,
                layernorm_embedding=self.layernorm_embedding,
                dropout=self.dropout,
            ),
            layer=self.layer(),
            layers=self.decoder_layers,
            output_dim=self.decoder_output_dim,
            final_norm=self.decoder_normalize_before and not self.no_decoder_final_norm,
            share_input_output=self.share_decoder_input_output_embed,
            adaptive_softmax=None if self.adaptive_softmax_cutoff is None else self._adaptive_softmax(),
            layerdrop=self.decoder_layerdrop,
            layers_to_keep=self.decoder_layers_to_keep,
        )

    def layer(self) -> LayerConfig:
        return LayerConfig(
            embed_dim=self.decoder_embed_dim,
            ffn_embed_dim=self.decoder_ffn_embed_dim,
            attention_heads=self.decoder_attention_heads,
            normalize_before=self.decoder_normalize_before,
            activation_fn=self.activation_fn,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.activation_dropout,
            scale_fc=self.scale_fc,
            scale_attn=self.scale_attn,
            scale_heads=self.scale_heads,
            scale_resids=self.scale_resids,
            norm_fn=self.norm_fn,
            rotary_pos=self.rotary_pos,
            kv_heads=self.decoder_kv_heads,
        )

    def _adaptive_softmax(self) -> AdaptiveSoftmaxConfig:
        assert self.adaptive_softmax_cutoff is not None
        return AdaptiveSoftmaxConfig(
            self.adaptive_softmax_cutoff,
            self.adaptive_softmax_dropout,
            self.adaptive_softmax_factor,
            self.tie_adaptive_weights,
            self.tie_adaptive_proj,
        )


class TransformerLM(LanguageModel):
    """A stack of causal layers. All named sizes of it are YAML files that start from `transformer_lm.yaml`."""

    def __init__(self, cfg: TransformerLMConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_target_positions, cfg.max_target_positions)
        vocabulary = task.target_vocabulary
        self.decoder = Decoder(cfg.decoder(), _embed_tokens(cfg, len(vocabulary), vocabulary.pad), len(vocabulary))

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        features: Tensor = self.decoder(prev_output_tokens, None, cache)
        return features

    def new_cache(self) -> TransformerCache:
        return self.decoder.new_cache()

    def project(self, features: Tensor) -> Tensor:
        return self.decoder.project(features)

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.decoder.output_projection


def _embed_tokens(cfg: TransformerLMConfig, size: int, pad: int) -> nn.Embedding | AdaptiveInput:
    if not cfg.adaptive_input:
        return token_embedding(size, cfg.decoder_input_dim, pad)
    assert cfg.adaptive_input_cutoff is not None
    return AdaptiveInput(
        size, cfg.decoder_input_dim, cfg.decoder_embed_dim, cfg.adaptive_input_cutoff, cfg.adaptive_input_factor, pad
    )
