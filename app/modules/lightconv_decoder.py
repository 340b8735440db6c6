"""The decoder of a LightConv or DynamicConv model, from tokens to features to scores; with an encoder or without."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from app.modules.adaptive_softmax import AdaptiveSoftmax
from app.modules.attention import KeyValues, visible
from app.modules.convolution_windows import ConvCache
from app.modules.embedding import Embedding, EmbeddingConfig
from app.modules.light_convolutions import DYNAMIC, LIGHTWEIGHT
from app.modules.lightconv_layer import LightConvDecoderLayer, LightConvLayerConfig
from app.ranges import at_least, divides, one_of, positive, probability, rising_cutoffs


@dataclass
class LightConvDecoderConfig:
    """The sizes of the decoder, by fairseq's names, and what both sides share."""

    decoder_embed_dim: int  # width of the decoder
    decoder_input_dim: int  # width of the decoder's embeddings, which are projected to the layers' where it differs
    decoder_output_dim: int  # width of the features that are projected to the vocabulary
    decoder_conv_dim: int  # width of the decoder's convolutions
    decoder_ffn_embed_dim: int  # width inside the decoder's feed-forward parts
    decoder_layers: int  # layers of the decoder
    decoder_attention_heads: int  # heads of each convolution in the decoder, and of its attention to the encoder
    decoder_normalize_before: bool  # pre-norm decoder: layer norm before each part
    decoder_learned_pos: bool  # learned rather than sinusoidal positions in the decoder
    decoder_conv_type: str  # lightweight: one kernel a head; dynamic: kernels made from each position's input
    decoder_kernel_size_list: list[int]  # positions that each decoder layer reads: itself and those before it
    decoder_glu: bool  # a gated linear unit before each convolution of the decoder
    weight_softmax: bool  # kernels are distributions
    dropout: float  # after embeddings and after each part of a layer
    attention_dropout: float  # on attention weights
    relu_dropout: float  # inside feed-forward parts
    input_dropout: float  # before each convolution's part
    weight_dropout: float  # on kernels
    no_token_positional_embeddings: bool  # no positions at all
    share_decoder_input_output_embed: bool  # one matrix for the decoder's embeddings and output projection
    adaptive_softmax_cutoff: list[int] | None  # words up to each cutoff form a cluster; null: an ordinary softmax
    adaptive_softmax_dropout: float  # inside the adaptive softmax
    adaptive_softmax_factor: float  # each tail cluster's width is divided by a further power of this
    max_target_positions: int  # longest target, eos included

    def check_side(self, side: str) -> Iterator[str]:
        """The faults of one side's fields, encoder or decoder."""
        sizes = ("embed_dim", "conv_dim", "ffn_embed_dim", "layers", "attention_heads")
        yield from positive(self, *(f"{side}_{size}" for size in sizes))
        yield from divides(self, f"{side}_attention_heads", f"{side}_conv_dim", f"{side}_embed_dim")
        yield from one_of(self, f"{side}_conv_type", LIGHTWEIGHT, DYNAMIC)
        kernels, layers = getattr(self, f"{side}_kernel_size_list"), getattr(self, f"{side}_layers")
        if len(kernels) != layers or min(kernels, default=0) < 1:
            yield f"{side}_kernel_size_list={kernels}: must be {layers} sizes of 1 or more, one a layer"

    def check_decoder(self) -> Iterator[str]:
        yield from self.check_side("decoder")
        yield from positive(self, "decoder_input_dim", "decoder_output_dim", "max_target_positions")
        yield from probability(self, "dropout", "attention_dropout", "relu_dropout", "input_dropout", "weight_dropout")
        yield from probability(self, "adaptive_softmax_dropout")
        yield from at_least(self, 1, "adaptive_softmax_factor")
        yield from rising_cutoffs(self, "adaptive_softmax_cutoff")
        if self.share_decoder_input_output_embed and self.adaptive_softmax_cutoff is not None:
            yield "share_decoder_input_output_embed=true: an adaptive softmax has no matrix to share; drop one of them"
        if self.share_decoder_input_output_embed and self.decoder_input_dim != self.decoder_output_dim:
            yield (
                f"share_decoder_input_output_embed=true: decoder_input_dim={self.decoder_input_dim} and "
                f"decoder_output_dim={self.decoder_output_dim} must be equal"
            )

    def layer(self, side: str, number: int) -> LightConvLayerConfig:
        """A layer of `side`, encoder or decoder."""
        return LightConvLayerConfig(
            embed_dim=getattr(self, f"{side}_embed_dim"),
            conv_dim=getattr(self, f"{side}_conv_dim"),
            ffn_embed_dim=getattr(self, f"{side}_ffn_embed_dim"),
            heads=getattr(self, f"{side}_attention_heads"),
            kernel_size=getattr(self, f"{side}_kernel_size_list")[number],
            conv_type=getattr(self, f"{side}_conv_type"),
            glu=getattr(self, f"{side}_glu"),
            normalize_before=getattr(self, f"{side}_normalize_before"),
            weight_softmax=self.weight_softmax,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            relu_dropout=self.relu_dropout,
            input_dropout=self.input_dropout,
            weight_dropout=self.weight_dropout,
        )

    def embedding(self, side: str, max_positions: int) -> EmbeddingConfig:
        """What stands before the layers of `side`."""
        return EmbeddingConfig(
            dim=getattr(self, f"{side}_embed_dim"),
            max_positions=max_positions,
            learned_pos=getattr(self, f"{side}_learned_pos"),
            no_token_positional_embeddings=self.no_token_positional_embeddings,
            no_scale_embedding=False,
            layernorm_embedding=False,
            dropout=self.dropout,
        )


class LightConvCache(ConvCache):
    """The windows of the convolutions, and the encoder's keys and values."""

    def __init__(self, layers: int):
        super().__init__()
        self.keys = [KeyValues() for _ in range(layers)]

    def keep_sentences(self, sentences: Tensor) -> None:
        for keys in self.keys:
            keys.select(sentences)


class LightConvDecoder(Embedding):
    """A stack of decoder layers. Parameters are named as in fairseq's state_dict."""

    def __init__(
        self, cfg: LightConvDecoderConfig, embed_tokens: nn.Embedding, memory_dim: int | None, final_norm: bool
    ):
        """`memory_dim`: width of the encoder's states; None: no encoder. `final_norm`: one at the end, if pre-norm."""
        super().__init__(cfg.embedding("decoder", cfg.max_target_positions), embed_tokens)
        dim, out, words = cfg.decoder_embed_dim, cfg.decoder_output_dim, embed_tokens.num_embeddings
        self.layers = nn.ModuleList(
            LightConvDecoderLayer(cfg.layer("decoder", i), i, memory_dim) for i in range(cfg.decoder_layers)
        )
        self.layer_norm = nn.LayerNorm(dim) if cfg.decoder_normalize_before and final_norm else None
        self.project_out_dim = nn.Linear(dim, out, bias=False) if dim != out else None
        if self.project_out_dim is not None:
            nn.init.xavier_uniform_(self.project_out_dim.weight)
        self.adaptive_softmax: AdaptiveSoftmax | None = None
        self.output_projection: nn.Linear | None = None
        cutoff = cfg.adaptive_softmax_cutoff
        if cutoff is not None:
            dropout, factor = cfg.adaptive_softmax_dropout, cfg.adaptive_softmax_factor
            self.adaptive_softmax = AdaptiveSoftmax(words, out, cutoff, dropout, factor)
            return
        self.output_projection = nn.Linear(out, words, bias=False)
        nn.init.normal_(self.output_projection.weight, std=out**-0.5)
        if cfg.share_decoder_input_output_embed:
            self.output_projection.weight = embed_tokens.weight

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor | None = None,
        keep: Tensor | None = None,
        cache: LightConvCache | None = None,
    ) -> Tensor:
        """tokens [N, T], memory [B, S, E], keep [B, S] -> features [N, T, D]. With a cache T = 1."""
        x = self.embed(tokens, None if cache is None else cache.step)
        mask = None if keep is None else visible(keep)
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, mask, cache, None if cache is None else cache.keys[i])
        if cache is not None:
            cache.step += 1
        x = x if self.layer_norm is None else self.layer_norm(x)
        return x if self.project_out_dim is None else self.project_out_dim(x)

    def cross_attention(self, tokens: Tensor, memory: Tensor, keep: Tensor) -> Tensor:
        """The last layer's attention to the encoder, mean over heads: [B, T, S]."""
        x, mask = self.embed(tokens), visible(keep)
        for layer in self.layers[:-1]:
            x = layer(x, memory, mask)
        last = self.layers[-1]
        assert isinstance(last, LightConvDecoderLayer)
        return last.cross_attention(x, memory, mask)

    def new_cache(self) -> LightConvCache:
        return LightConvCache(len(self.layers))

    def project(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        scores: Tensor = (self.adaptive_softmax or self.output_projection)(features)  # type: ignore[misc]
        return scores
