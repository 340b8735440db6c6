"""A Transformer for each pair of languages, which share what they may (Firat et al., 2016; Johnson et al., 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol, cast

from torch import Tensor, nn

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError
from app.interfaces import Cache, EncoderOut, Model, Task
from app.models.transformer import Transformer, TransformerConfig


@dataclass
class MultilingualTransformerConfig(TransformerConfig):
    share_encoders: bool  # one encoder for all source languages, rather than one for each
    share_decoders: bool  # one decoder for all target languages, rather than one for each
    share_encoder_embeddings: bool  # one matrix for the words of all source languages
    share_decoder_embeddings: bool  # one matrix for the words of all target languages

    def shared_by(self, side: str) -> str | None:
        """The name of what all languages of a side, encoder or decoder, share as embeddings; None: nothing."""
        if self.share_all_embeddings:
            return "all"
        shares = getattr(self, f"share_{side}s") or getattr(self, f"share_{side}_embeddings")
        return side if shares else None


class HasPairs(Protocol):
    """A task of several pairs of languages."""

    lang_pairs: list[str]  # such as de-en
    vocabularies: Mapping[str, Vocabulary]  # of each language


class MultilingualTransformer(Model):
    """`of_pair` gives the model of a pair of languages; the whole, asked as a model, is that of the first pair.

    Encoders belong to source languages and decoders to target languages, so that pairs with a language on the same side
    share it. Raises `ConfigError` where embeddings are to be shared by languages with different vocabularies.
    """

    has_pairs = True

    def __init__(self, cfg: MultilingualTransformerConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        pairs = cast(HasPairs, task)
        sides: dict[tuple[str, str], Any] = {}  # encoders and decoders, by side and language
        embeddings: dict[str, tuple[nn.Module, Vocabulary]] = {}
        self.models = nn.ModuleDict()
        for pair in pairs.lang_pairs:
            source, target = pair.split("-")
            view: Any = SimpleNamespace(
                source_vocabulary=pairs.vocabularies[source], target_vocabulary=pairs.vocabularies[target]
            )
            model = Transformer(cfg, view)
            share_embeddings(cfg, model, "encoder", view.source_vocabulary, embeddings)
            share_embeddings(cfg, model, "decoder", view.target_vocabulary, embeddings)
            model.encoder = sides.setdefault(("encoder", "all" if cfg.share_encoders else source), model.encoder)
            model.decoder = sides.setdefault(("decoder", "all" if cfg.share_decoders else target), model.decoder)
            self.models[pair] = model
        self._first = pairs.lang_pairs[0]

    def of_pair(self, pair: str) -> Transformer:
        """The model of a pair such as de-en. Its parameters are this model's."""
        return cast(Transformer, self.models[pair])

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        return self.of_pair(self._first).encode(src_tokens, src_lengths)

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        return self.of_pair(self._first).decode(prev_output_tokens, encoder_out, cache)

    def new_cache(self) -> Cache:
        return self.of_pair(self._first).new_cache()

    def project(self, features: Tensor) -> Tensor:
        return self.of_pair(self._first).project(features)


def share_embeddings(
    cfg: MultilingualTransformerConfig,
    model: Transformer,
    side: str,
    vocabulary: Vocabulary,
    embeddings: dict[str, tuple[nn.Module, Vocabulary]],
) -> None:
    """Give a side of a new model the `embeddings` that it is to share, or note its own there for those that follow."""
    name, owner = cfg.shared_by(side), getattr(model, side)
    if name is None:
        return
    owner.embed_tokens, others = embeddings.setdefault(name, (owner.embed_tokens, vocabulary))
    if others != vocabulary:
        raise ConfigError(
            [f"model: languages that share embeddings ({name}) need one vocabulary; set task.joined_dictionary=true"]
        )
    if side == "decoder" and owner.output_projection is not None and cfg.shares_output:
        owner.output_projection.weight = owner.embed_tokens.weight
