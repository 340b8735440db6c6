"""Beam search that may go on only with what a class of the user's, or a list of outputs, allows."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError
from app.search.beam import BeamConfig, BeamSearch
from app.search.rules import Beams, Candidates, Rule
from app.search.steps import NEVER


class PrefixConstrainedSearch(BeamSearch):
    """To allow what you like, derive from this, define `allowed_tokens`, and name your class as `_target_`.

    Where nothing allowed is possible, because of a limit or another option, that is an error.
    """

    @abstractmethod
    def allowed_tokens(self, source: list[int], output: list[int]) -> Iterable[int]:
        """The ids that may follow `output` (no bos) as a translation of `source` (with eos); eos ends the output."""

    def rule(self, src_tokens: Tensor, src_lengths: Tensor) -> Rule:
        sources = [[token for token in row if token != self.pad] for row in src_tokens.tolist()]
        return Allowed(self.beam, self, sources)


class Allowed(Rule):
    def __init__(self, beam: int, search: PrefixConstrainedSearch, sources: list[list[int]]):
        super().__init__(beam)
        self.search, self.sources = search, sources

    def candidates(self, log_probs: Tensor, beams: Beams) -> Candidates:
        banned = torch.ones(log_probs.shape, dtype=torch.bool)
        sentences = beams.sentences.repeat_interleave(beams.width).tolist()
        for row, (sentence, output) in enumerate(zip(sentences, beams.tokens[:, 1:].tolist())):
            banned[row, list(self.search.allowed_tokens(self.sources[sentence], output))] = False
        log_probs.masked_fill_(banned.to(log_probs.device), NEVER)
        return super().candidates(log_probs, beams)


@dataclass
class ChoicesConfig(BeamConfig):
    choices: list[str]  # all outputs that there may be, each as pieces of the target vocabulary with spaces between

    def check(self) -> Iterator[str]:
        yield from super().check()
        if not self.choices:
            yield "choices=[]: allows nothing; name the outputs that there may be"


class Choices(PrefixConstrainedSearch):
    """The most probable of a closed list of outputs, held as a trie (De Cao et al., 2021, sec. 3.2)."""

    def __init__(self, cfg: ChoicesConfig, vocabulary: Vocabulary):
        super().__init__(cfg, vocabulary)
        self.following: dict[tuple[int, ...], set[int]] = {}  # beginning of an output -> what may come next
        for choice in cfg.choices:
            tokens = [vocabulary.index(piece) for piece in choice.split()]
            if vocabulary.unk in tokens:
                unknown = choice.split()[tokens.index(vocabulary.unk)]
                raise ConfigError([f"search.choices: {unknown} in {choice!r} is not a piece of the target vocabulary"])
            for end, token in enumerate([*tokens, self.eos]):
                self.following.setdefault(tuple(tokens[:end]), set()).add(token)

    def allowed_tokens(self, source: list[int], output: list[int]) -> Iterable[int]:
        return self.following.get(tuple(output), ())
