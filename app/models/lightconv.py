"""LightConv and DynamicConv: a Transformer whose self-attentions are convolutions (Wu et al., 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, Model, Task
from app.modules.embedding import Embedding, token_embedding
from app.modules.lightconv_decoder import LightConvCache, LightConvDecoder, LightConvDecoderConfig
from app.modules.lightconv_layer import LightConvEncoderLayer
from app.ranges import positive


@dataclass
class LightConvConfig(LightConvDecoderConfig):
    """fairseq's names, flat."""

    encoder_embed_dim: int  # width of the encoder
    encoder_conv_dim: int  # width of the encoder's convolutions
    encoder_ffn_embed_dim: int  # width inside the encoder's feed-forward parts
    encoder_layers: int  # layers of the encoder
    encoder_attention_heads: int  # heads of each convolution in the encoder
    encoder_normalize_before: bool  # pre-norm encoder: layer norm before each part, and one at the end
    encoder_learned_pos: bool  # learned rather than sinusoidal positions in the encoder
    encoder_conv_type: str  # lightweight: one kernel a head; dynamic: kernels made from each position's input
    encoder_kernel_size_list: list[int]  # positions that each encoder layer reads, around its own
    encoder_glu: bool  # a gated linear unit before each convolution of the encoder
    share_all_embeddings: bool  # one matrix for both embeddings and the output projection; needs one vocabulary
    max_source_positions: int  # longest source, eos included

    def check(self) -> Iterator[str]:
        yield from self.check_side("encoder")
        yield from self.check_decoder()
        yield from positive(self, "max_source_positions")
        if self.share_all_embeddings and not self.share_decoder_input_output_embed:
            yield "share_all_embeddings=true: share_decoder_input_output_embed must be true as well"
        if self.share_all_embeddings and self.encoder_embed_dim != self.decoder_input_dim:
            yield (
                f"share_all_embeddings=true: encoder_embed_dim={self.encoder_embed_dim} and "
                f"decoder_input_dim={self.decoder_input_dim} must be equal"
            )


class Encoder(Embedding):
    """A stack of encoder layers."""

    def __init__(self, cfg: LightConvConfig, embed_tokens: nn.Embedding):
        super().__init__(cfg.embedding("encoder", cfg.max_source_positions), embed_tokens)
        self.layers = nn.ModuleList(LightConvEncoderLayer(cfg.layer("encoder", i)) for i in range(cfg.encoder_layers))
        self.layer_norm = nn.LayerNorm(cfg.encoder_embed_dim) if cfg.encoder_normalize_before else None

    def forward(self, src_tokens: Tensor) -> EncoderOut:
        keep = src_tokens.ne(self.padding_idx)  # [B, S]
        x = self.embed(src_tokens)
        for layer in self.layers:
            x = layer(x, keep)
        return EncoderOut(x if self.layer_norm is None else self.layer_norm(x), keep)


class LightConv(Model):
    """Encoder and decoder. All named sizes of it are YAML files that start from `conf/model/lightconv.yaml`."""

    def __init__(self, cfg: LightConvConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        embed_tokens = token_embedding(len(source), cfg.encoder_embed_dim, source.pad)
        self.encoder = Encoder(cfg, embed_tokens)
        if not cfg.share_all_embeddings:
            embed_tokens = token_embedding(len(target), cfg.decoder_input_dim, target.pad)
        self.decoder = LightConvDecoder(cfg, embed_tokens, cfg.encoder_embed_dim, final_norm=True)

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        out: EncoderOut = self.encoder(src_tokens)
        return out

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        features: Tensor = self.decoder(prev_output_tokens, encoder_out.states, encoder_out.keep, cache)
        return features

    def new_cache(self) -> LightConvCache:
        return self.decoder.new_cache()

    def project(self, features: Tensor) -> Tensor:
        return self.decoder.project(features)

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.decoder.output_projection

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor | None:
        return self.decoder.cross_attention(prev_output_tokens, encoder_out.states, encoder_out.keep)
