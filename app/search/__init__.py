"""From next-token scores to hypotheses. One file a strategy; this page says what a strategy is."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError
from app.interfaces import Model

Constraints = list[list[list[int]]]  # for every row of a batch the token sequences that its outputs must have


class Hypothesis(NamedTuple):
    """One finished output of a search."""

    tokens: Tensor  # [T], eos at the end, nothing in front
    score: float  # sum of `positional_scores`, divided by T ** lenpen where the search normalises
    positional_scores: Tensor  # [T] log-probabilities
    attention: Tensor | None = None  # [T, S] the last layer's cross attention, mean over heads, where it was asked for
    history: list[Tensor] | None = None  # the draft [T'] after each step, of a search that refines, where asked for


class Search(ABC):
    """A way to find good outputs."""

    refines: ClassVar[bool] = False  # see `app.interfaces.Model`
    phrases: list[str] | None = None  # what every output must have; None: `generate` takes no `constraints`
    lm_path: str | None = None  # the run of a language model to use: who makes the search loads it into `lm`
    lm: Model | None = None

    @abstractmethod
    def __init__(self, cfg: Any, vocabulary: Vocabulary): ...

    def check_models(self, models: list[Model]) -> None:
        """Raise `ConfigError` where these are no models for this search."""
        if drafting := [type(model).__name__ for model in models if model.refines]:
            mend = "which goes token by token; choose search=iterative_refinement"
            raise ConfigError([f"{drafting[0]}: makes drafts, and is no model for {type(self).__name__}, {mend}"])

    def between(self, bos: int, eos: int) -> "Search":
        """This search, with outputs that come after `bos` and end with `eos`, unless its options name others.

        Raises `ConfigError` where it cannot.
        """
        raise ConfigError([f"search: {type(self).__name__} knows no symbols of languages; choose beam or greedy"])

    @abstractmethod
    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """[B, S], [B], [B, P] or None -> for every row its hypotheses, best first. Several models are an ensemble."""
