"""The encoder of a Transformer: tokens to states that have seen each other."""

from dataclasses import dataclass

from torch import Tensor, nn

from app.modules.attention import visible
from app.modules.embedding import Embedding, EmbeddingConfig
from app.modules.layer_stack import LayerStack
from app.modules.transformer_layer import EncoderLayer, LayerConfig


@dataclass
class EncoderConfig:
    """A stack of encoder layers and what stands before and after it."""

    embedding: EmbeddingConfig
    layer: LayerConfig
    layers: int  # number of layers
    final_norm: bool  # a layer norm after the last layer
    layerdrop: float = 0.0  # probability of a layer to be left out of a pass in training
    layers_to_keep: list[int] | None = None  # the layers that there are, from 0; None: all


class TransformerEncoder(Embedding):
    """A stack of encoder layers. Parameters are named as in fairseq's state_dict."""

    def __init__(self, cfg: EncoderConfig, embed_tokens: nn.Embedding):
        super().__init__(cfg.embedding, embed_tokens)
        self.layers = LayerStack(lambda: EncoderLayer(cfg.layer), cfg.layers, cfg.layerdrop, cfg.layers_to_keep)
        self.layer_norm = cfg.layer.make_norm(cfg.layer.embed_dim) if cfg.final_norm else None

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S] -> states [B, S, D], and keep [B, S], which is False at padding."""
        keep = tokens.ne(self.padding_idx)
        x = self.embed(tokens)
        mask = visible(keep)
        for layer in self.layers:
            x = layer(x, mask)
        return (x if self.layer_norm is None else self.layer_norm(x)), keep
