"""The sizes of a Transformer with an encoder and a decoder, whether it writes word by word or refines drafts."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.modules.activations import ACTIVATIONS, GATED
from app.modules.embedding import EmbeddingConfig
from app.modules.transformer_encoder import EncoderConfig
from app.modules.transformer_layer import LayerConfig
from app.ranges import divides, one_of, positive, probability

SIDES = ("encoder", "decoder")


@dataclass
class EncoderDecoderConfig:
    """fairseq's names, flat, so that its users need not learn new ones. A model's config extends this one."""

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
    share_decoder_input_output_embed: bool  # one matrix for the decoder's embeddings and output projection
    share_all_embeddings: bool  # one matrix for both embeddings and the output projection; needs one vocabulary
    no_token_positional_embeddings: bool  # no positions at all
    activation_fn: str  # of the feed-forward parts
    dropout: float  # after embeddings and after each part of a layer
    attention_dropout: float  # on attention weights
    activation_dropout: float  # inside feed-forward parts
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        for side in SIDES:
            yield from positive(self, f"{side}_layers", f"{side}_embed_dim", f"{side}_ffn_embed_dim")
            yield from positive(self, f"{side}_attention_heads")
            yield from divides(self, f"{side}_attention_heads", f"{side}_embed_dim")
        yield from positive(self, "decoder_output_dim", "max_source_positions", "max_target_positions")
        yield from probability(self, "dropout", "attention_dropout", "activation_dropout")
        yield from one_of(self, "activation_fn", *ACTIVATIONS, *GATED)
        if self.share_all_embeddings and self.encoder_embed_dim != self.decoder_embed_dim:
            yield (
                f"share_all_embeddings=true: encoder_embed_dim={self.encoder_embed_dim} and "
                f"decoder_embed_dim={self.decoder_embed_dim} must be equal"
            )
        if self.shares_output and self.decoder_output_dim != self.decoder_embed_dim:
            yield (
                f"decoder_output_dim={self.decoder_output_dim}: must equal decoder_embed_dim="
                f"{self.decoder_embed_dim} when the output projection is shared with the embeddings"
            )

    @property
    def shares_output(self) -> bool:
        """Whether the output projection is the decoder's embeddings."""
        return self.share_all_embeddings or self.share_decoder_input_output_embed

    def embedding(self, side: str) -> EmbeddingConfig:
        """What stands before the layers of `side`, encoder or decoder."""
        return EmbeddingConfig(
            dim=getattr(self, f"{side}_embed_dim"),
            max_positions=self.max_source_positions if side == "encoder" else self.max_target_positions,
            learned_pos=getattr(self, f"{side}_learned_pos"),
            no_token_positional_embeddings=self.no_token_positional_embeddings,
            no_scale_embedding=False,
            layernorm_embedding=False,
            dropout=self.dropout,
        )

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

    def encoder(self) -> EncoderConfig:
        layers, final_norm = self.encoder_layers, self.encoder_normalize_before
        return EncoderConfig(self.embedding("encoder"), self.layer("encoder"), layers, final_norm)
