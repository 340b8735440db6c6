"""The language model of gated convolutions (Dauphin et al., 2017), with fairseq's options and parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from app.interfaces import Cache, EncoderOut, LanguageModel, Task
from app.modules.convolution_windows import ConvCache
from app.modules.gated_convolutions import ConvDecoder, check_layers, conv_embedding
from app.ranges import positive, probability, rising_cutoffs


@dataclass
class FConvLMConfig:
    """A layer is [channels, width] or [channels, width, layers back that its residual comes from (1; 0: none)]."""

    decoder_embed_dim: int  # width of embeddings and features
    decoder_layers: list[list[int]]  # the convolutions
    dropout: float  # before each convolution, and on embeddings and features
    adaptive_softmax_cutoff: list[int] | None  # words up to each cutoff form a cluster; null: an ordinary softmax
    adaptive_softmax_dropout: float  # inside the adaptive softmax
    max_target_positions: int  # longest row

    def check(self) -> Iterator[str]:
        yield from positive(self, "decoder_embed_dim", "max_target_positions")
        yield from probability(self, "dropout", "adaptive_softmax_dropout")
        yield from check_layers("decoder_layers", self.decoder_layers)
        yield from rising_cutoffs(self, "adaptive_softmax_cutoff")


class FConvLM(LanguageModel):
    """Convolutions over the words so far; the order of words is all that says where a word stands."""

    def __init__(self, cfg: FConvLMConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_target_positions, cfg.max_target_positions)
        vocabulary = task.target_vocabulary
        self.decoder = ConvDecoder(
            conv_embedding(len(vocabulary), cfg.decoder_embed_dim, vocabulary.pad),
            cfg.decoder_layers,
            cfg.dropout,
            out_embed_dim=cfg.decoder_embed_dim,
            share_embed=False,
            adaptive_softmax_cutoff=cfg.adaptive_softmax_cutoff,
            adaptive_softmax_dropout=cfg.adaptive_softmax_dropout,
        )

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        embedded = self.decoder.dropout(self.decoder.embed_tokens(prev_output_tokens))
        seen = cache if isinstance(cache, ConvCache) else None
        return self.decoder.features(embedded, attend=lambda layer, x: x, cache=seen)

    def new_cache(self) -> ConvCache:
        return ConvCache()

    def project(self, features: Tensor) -> Tensor:
        return self.decoder.project(features)
