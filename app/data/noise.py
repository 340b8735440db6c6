"""BART's noise (Lewis et al., 2020, sec. 2.2): what a model sees of a text that it is to restore."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.ranges import between, one_of

LONGEST_SPAN = 127  # of a mask, in words
LEAST_PROBABILITY = 1e-7  # beyond the mean no span is longer than the first one that is rarer than this


@dataclass
class NoiseConfig:
    permute_sentences: float  # share of a block's sentences that change places
    mask: float  # share of words (with mask_length=subword of pieces) that is masked
    mask_length: str  # what is masked at once: subword (a piece), word, or span-poisson (several words, or none)
    poisson_lambda: float  # mean number of words of a span
    replace_length: int  # what stands for what is masked: 0 nothing, 1 a mask for all of it, -1 a mask for each piece
    mask_random: float  # share of masks that are a random symbol instead; it may be any but bos
    insert: float  # further masks between the pieces, as a share of their number
    rotate: float  # probability that a block starts at another piece, and goes on with what stood before it

    def check(self) -> Iterator[str]:
        yield from between(self, 0, 1, "permute_sentences", "mask", "mask_random", "insert", "rotate")
        yield from between(self, 0.1, 64, "poisson_lambda")
        yield from one_of(self, "mask_length", "subword", "word", "span-poisson")
        if self.replace_length not in (-1, 0, 1):
            yield f"replace_length={self.replace_length}: must be -1, 0 or 1"
        if self.mask_length == "subword" and self.replace_length == -1:
            yield "replace_length=-1: a single piece has one mask or none; set 0 or 1, or another mask_length"


class Draws(NamedTuple):
    """Where chance comes from. Two sources, because fairseq's has two, and its numbers are to come out."""

    torch: torch.Generator
    numpy: np.random.RandomState

    @classmethod
    def of(cls, *seeds: int) -> "Draws":
        """A pure function of these numbers, each 0 or more."""
        first, second = np.random.SeedSequence(seeds).generate_state(2)
        return cls(torch.Generator().manual_seed(int(first)), np.random.RandomState(second))


class Noise:
    """Disturbs one block: sentences first, then masks, insertions and rotation."""

    def __init__(self, cfg: NoiseConfig, mask: int, vocabulary_size: int, word_begins: NDArray[np.bool_] | None = None):
        """`word_begins` [V]: which pieces start a word; None: all do."""
        self.cfg, self.mask, self.size = cfg, mask, vocabulary_size
        self.word_begins = None if word_begins is None else torch.from_numpy(word_begins)
        self.span_lengths = span_lengths(cfg.poisson_lambda) if cfg.mask_length == "span-poisson" else None

    def __call__(self, tokens: Tensor, ends: Tensor, draws: Draws) -> Tensor:
        """bos, pieces and eos [T], and where sentences end [T] -> bos, disturbed pieces and eos, of another length.

        bos and eos end no sentence; the last piece always does.
        """
        cfg, source = self.cfg, tokens
        if cfg.permute_sentences > 0:
            source = permuted(source, ends, cfg.permute_sentences, draws)
        if cfg.mask > 0:
            source = self.masked(source, draws)
        if cfg.insert > 0:
            source = self.with_insertions(source, cfg.insert, draws)
        if cfg.rotate > 0 and draws.numpy.random() < cfg.rotate:
            start = draws.numpy.randint(1, max(1, len(source) - 1) + 1)
            source = torch.cat([source[:1], source[start:-1], source[1:start], source[-1:]])
        return source

    def masked(self, source: Tensor, draws: Draws) -> Tensor:
        """A share `mask` of the words becomes masks, or nothing."""
        starts = torch.ones(len(source), dtype=torch.bool) if self.word_begins is None else self.word_begins[source]
        starts[0] = starts[-1] = False
        budget = math.ceil(starts.float().sum() * self.cfg.mask)
        if budget == 0:
            return source
        lengths = torch.ones(budget, dtype=torch.long) if self.span_lengths is None else self._spans(budget, draws)
        filled = lengths[lengths > 0]
        inserts = len(lengths) - len(filled)
        if not len(filled):
            return self.with_insertions(source, inserts / len(source), draws)
        words = starts.nonzero().squeeze(1)
        chosen = words[torch.randperm(len(words), generator=draws.torch)[: len(filled)]]
        source = self._covered(source, starts, chosen, filled[: len(chosen)], draws)
        return self.with_insertions(source, inserts / len(source), draws) if inserts else source

    def _spans(self, budget: int, draws: Draws) -> Tensor:
        """Lengths in words that add up to the budget; those of length 0 are masks between words."""
        assert self.span_lengths is not None
        lengths = torch.empty(0, dtype=torch.long)
        while lengths.sum() < budget:
            lengths = torch.cat(
                [lengths, torch.multinomial(self.span_lengths, budget, replacement=True, generator=draws.torch)]
            )
        sums = lengths.cumsum(0)
        last = int((sums < budget).sum())
        lengths[last] -= sums[last] - budget
        return lengths[: last + 1]

    def _covered(self, source: Tensor, starts: Tensor, chosen: Tensor, lengths: Tensor, draws: Draws) -> Tensor:
        """The spans of `lengths` words that start at `chosen`, grown piece by piece until the next word's start."""
        random = torch.empty(len(chosen)).uniform_(generator=draws.torch) < self.cfg.mask_random
        source, kept = source.clone(), torch.ones(len(source), dtype=torch.bool)
        if self.cfg.replace_length == 0:
            kept[chosen] = False
        else:
            self._replace(source, chosen, random, draws)
        stops = starts.long()
        stops[-1] = LONGEST_SPAN + 1  # no span goes beyond the end
        lengths = lengths - 1
        while len(chosen):
            lengths = lengths - stops[chosen + 1]
            goes_on = lengths >= 0
            chosen, random, lengths = chosen[goes_on] + 1, random[goes_on], lengths[goes_on]
            if self.cfg.replace_length == -1:
                self._replace(source, chosen, random, draws)
            else:
                kept[chosen] = False
        return source[kept]

    def _replace(self, source: Tensor, places: Tensor, random: Tensor, draws: Draws) -> None:
        source[places] = self.mask
        source[places[random]] = self._random_symbols(int(random.sum()), draws)

    def with_insertions(self, source: Tensor, share: float, draws: Draws) -> Tensor:
        """Masks or random symbols, as many as this share of the block's length, at random places behind bos."""
        count = math.ceil(len(source) * share)
        places = torch.randperm(len(source) + count - 2, generator=draws.torch)[:count] + 1
        random = math.ceil(count * self.cfg.mask_random)
        result = torch.full((len(source) + count,), -1, dtype=source.dtype)
        result[places[random:]] = self.mask
        result[places[:random]] = self._random_symbols(random, draws)
        result[result == -1] = source
        return result

    def _random_symbols(self, count: int, draws: Draws) -> Tensor:
        return torch.randint(1, self.size, (count,), generator=draws.torch)


def permuted(source: Tensor, ends: Tensor, share: float, draws: Draws) -> Tensor:
    """A share of the sentences, whose last pieces `ends` [T] marks, in each other's places."""
    ends = ends.clone()
    ends[-2] = True
    borders = (ends[1:] & ~ends[:-1]).nonzero().squeeze(1) + 2
    sentences = torch.tensor_split(source[1 : borders[-1]], borders[:-1] - 1)
    count = math.ceil(len(sentences) * share)
    moved = torch.randperm(len(sentences), generator=draws.torch)[:count]
    order = torch.arange(len(sentences))
    order[moved] = moved[torch.randperm(count, generator=draws.torch)]
    return torch.cat([source[:1], *(sentences[i] for i in order), source[borders[-1] :]])


def span_lengths(mean: float) -> Tensor:
    """[N] the probability of a span of 0, 1, ... words: Poisson's distribution, cut where it becomes rare.

    fairseq cuts below the mean too, and then a mean of 17 or more leaves it no span but 0, and it never ends.
    """
    probabilities = []
    power, factorial = 1.0, 1.0
    for k in range(LONGEST_SPAN + 1):
        probabilities.append(math.exp(-mean) * power / factorial)
        power, factorial = power * mean, factorial * (k + 1)
        if k > mean and probabilities[-1] < LEAST_PROBABILITY:
            break
    weights = torch.tensor(probabilities)
    return weights / weights.sum()
