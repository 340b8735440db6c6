"""What strategies differ in: which continuations of the live hypotheses a beam search looks at."""

from typing import NamedTuple

import torch
from torch import Tensor

from app.search.steps import top_candidates


class Beams(NamedTuple):
    """The live hypotheses, k beside each other for every live sentence: L sentences, N = L * k rows."""

    sentences: Tensor  # [L] rows of the batch
    tokens: Tensor  # [N, step + 1], the decoder's inputs
    scores: Tensor  # [N, step + 1], sums of log-probabilities up to each of `tokens`; 0 at the first
    idle: Tensor | None = None  # [L, k] places in the beam that an ended hypothesis fills; None: there are none

    @property
    def step(self) -> int:
        """Tokens decoded so far."""
        return self.tokens.size(1) - 1

    @property
    def width(self) -> int:
        """Rows a sentence: 1 at the first step, then `beam`."""
        return self.tokens.size(0) // self.sentences.size(0)


class Candidates(NamedTuple):
    """Continuations of every live sentence, in the order in which they are considered, C of them."""

    scores: Tensor  # [L, C] sums of log-probabilities
    rows: Tensor  # [L, C] the row of `Beams` that goes on
    tokens: Tensor  # [L, C] what it goes on with


class Rule:
    """Beam search's own rule: the 2 * beam best. A rule is made for one batch, so that it may keep state."""

    def __init__(self, beam: int):
        self.beam = beam

    def candidates(self, log_probs: Tensor, beams: Beams) -> Candidates:
        """The continuations to consider; `log_probs` [N, V], fp32 or less, may be written to."""
        return best_of_all(log_probs, beams, 2 * self.beam)

    def keep(self, live: Tensor, chosen: Tensor) -> None:
        """What goes on: of the live sentences those at `live` [M]; of the candidates of each, `chosen` [M, beam]."""


def best_of_all(log_probs: Tensor, beams: Beams, count: int) -> Candidates:
    """The `count` best continuations of every sentence, best first."""
    live, width, size = beams.sentences.size(0), beams.width, log_probs.size(1)
    added = beams.scores[:, -1].view(live, width)
    scores, places = top_candidates(log_probs.view(live, -1), min(count, width * size - 1), added)
    return Candidates(scores, places // size + first_rows(beams), places % size)


def first_rows(beams: Beams) -> Tensor:
    """The first row of each live sentence: [L, 1]."""
    return torch.arange(0, beams.tokens.size(0), beams.width, device=beams.tokens.device).unsqueeze(1)
