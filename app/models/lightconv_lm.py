"""The language model of LightConv and DynamicConv (Wu et al., 2019, sec. 6.3), with fairseq's parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, LanguageModel, Task
from app.modules.embedding import token_embedding
from app.modules.lightconv_decoder import LightConvCache, LightConvDecoder, LightConvDecoderConfig


@dataclass
class LightConvLMConfig(LightConvDecoderConfig):
    """fairseq's names, flat."""

    def check(self) -> Iterator[str]:
        yield from self.check_decoder()


class LightConvLM(LanguageModel):
    """A LightConv decoder without an encoder; where it is pre-norm it has, as in fairseq, no layer norm at its end."""

    def __init__(self, cfg: LightConvLMConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_target_positions, cfg.max_target_positions)
        vocabulary = task.target_vocabulary
        embed_tokens = token_embedding(len(vocabulary), cfg.decoder_input_dim, vocabulary.pad)
        self.decoder = LightConvDecoder(cfg, embed_tokens, memory_dim=None, final_norm=False)

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        features: Tensor = self.decoder(prev_output_tokens, cache=cache)
        return features

    def new_cache(self) -> LightConvCache:
        return self.decoder.new_cache()

    def project(self, features: Tensor) -> Tensor:
        return self.decoder.project(features)

    @property
    def output_projection(self) -> nn.Linear | None:
        return self.decoder.output_projection
