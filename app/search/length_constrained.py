"""Beam search whose outputs' lengths are held near their sources'."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.ranges import at_least
from app.search.beam import BeamConfig, BeamSearch
from app.search.rules import Beams, Candidates, Rule
from app.search.steps import NEVER


@dataclass
class LengthConstrainedConfig(BeamConfig):
    min_len_a: float  # outputs have min_len_a * source length (with eos) + min_len_b tokens at least; see min_len
    min_len_b: int  # see min_len_a
    free_len_a: float  # from free_len_a * source length (with eos) + free_len_b on, to end costs nothing
    free_len_b: int  # see free_len_a

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from at_least(self, 0, "min_len_a", "min_len_b", "free_len_a", "free_len_b")


class LengthConstrainedSearch(BeamSearch):
    """Short outputs are forbidden; at the upper length eos has probability 1, and other tokens keep theirs.

    fairseq calls the upper length max_len_a and max_len_b too, like the limits that no output exceeds.
    """

    def __init__(self, cfg: LengthConstrainedConfig, vocabulary: Vocabulary):
        super().__init__(cfg, vocabulary)
        self.lengths = cfg

    def rule(self, src_tokens: Tensor, src_lengths: Tensor) -> Rule:
        least = self.lengths.min_len_a * src_lengths + self.lengths.min_len_b
        most = self.lengths.free_len_a * src_lengths + self.lengths.free_len_b
        return Lengths(self.beam, self.eos, least, most)


class Lengths(Rule):
    """`least` and `free` are [B], in tokens without eos."""

    def __init__(self, beam: int, eos: int, least: Tensor, free: Tensor):
        super().__init__(beam)
        self.eos, self.least, self.free = eos, least, free

    def candidates(self, log_probs: Tensor, beams: Beams) -> Candidates:
        long, free = (
            (beams.step >= lengths[beams.sentences]).repeat_interleave(beams.width)
            for lengths in (self.least, self.free)
        )
        if not long.all():
            choice = log_probs.topk(2, dim=1).values[:, 1] > NEVER  # none at the largest length: there eos must be
            log_probs[~long & choice, self.eos] = NEVER
        log_probs[free, self.eos] = 0.0
        return super().candidates(log_probs, beams)
