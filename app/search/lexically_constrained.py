"""Beam search whose outputs have given words and phrases."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.interfaces import Model
from app.ranges import one_of
from app.search import Constraints, Hypothesis
from app.search.beam import BeamConfig, BeamSearch
from app.search.constraints import Ordered, Progress, Unordered
from app.search.rules import Beams, Candidates, Rule, best_of_all
from app.search.steps import NEVER


@dataclass
class LexicallyConstrainedConfig(BeamConfig):
    constraints: str  # ordered: in the order given; unordered: in any
    phrases: list[str]  # what every output must have; a line's own phrases follow it, each after a tab

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from one_of(self, "constraints", "ordered", "unordered")


class LexicallyConstrainedSearch(BeamSearch):
    """The beam is shared out among hypotheses with more and with fewer tokens of constraints (Post and Vilar, 2018).

    Nothing ends before it has all of them. Where max_len leaves no room for them, that is an error, as in fairseq.
    """

    def __init__(self, cfg: LexicallyConstrainedConfig, vocabulary: Vocabulary):
        super().__init__(cfg, vocabulary)
        self.phrases = cfg.phrases
        self.start = Ordered.start if cfg.constraints == "ordered" else Unordered.start

    def generate(
        self,
        models: list[Model],
        src_tokens: Tensor,
        src_lengths: Tensor,
        prefix_tokens: Tensor | None = None,
        constraints: Constraints | None = None,
    ) -> list[list[Hypothesis]]:
        """See `Search`. `constraints` are, for every row, the token sequences that its outputs must have."""
        starts = [self.start(each) for each in constraints or [[] for _ in src_tokens]]
        rule = Banks(self.beam, self.eos, starts)
        with torch.inference_mode():
            return self.search(models, src_tokens, src_lengths, prefix_tokens, rule)


class Option(NamedTuple):
    """One continuation of a sentence."""

    score: float
    row: int
    token: int
    after: Progress


class Banks(Rule):
    """Dynamic beam allocation: the best of each bank, then the second best, and so on, the fullest bank first."""

    def __init__(self, beam: int, eos: int, starts: Iterable[Progress]):
        super().__init__(beam)
        self.eos = eos
        self.states: list[list[Progress]] = [[start] for start in starts]  # of the rows of each live sentence
        self.next: list[list[Progress]] = []  # of the candidates of each live sentence

    def candidates(self, log_probs: Tensor, beams: Beams) -> Candidates:
        unfinished = torch.tensor([not state.finished for states in self.states for state in states])
        log_probs[unfinished.to(log_probs.device), self.eos] = NEVER
        best = best_of_all(log_probs, beams, 2 * self.beam)
        log_probs = log_probs.float().add_(beams.scores[:, -1:])  # from here on sums
        width = beams.width
        likeliest = log_probs.argmax(dim=1).view(-1, width).tolist() if beams.step else [[]] * len(self.states)
        chosen = []
        for sentence, states in enumerate(self.states):
            first = sentence * width
            pairs = list(zip(best.rows[sentence].tolist(), best.tokens[sentence].tolist()))
            pairs += [(first + i, token) for i, token in enumerate(likeliest[sentence])]
            pairs += [(first + i, token) for i, state in enumerate(states) for token in state.next_tokens()]
            rows, tokens = (list(part) for part in zip(*pairs))
            scores = log_probs[rows, tokens].tolist()
            options = [Option(s, r, t, states[r - first].advance(t)) for s, r, t in zip(scores, rows, tokens)]
            chosen.append(shared_out(options)[: best.tokens.size(1)])
        self.next = [[option.after for option in options] for options in chosen]
        device = log_probs.device
        return Candidates(
            *(torch.tensor([[o[field] for o in options] for options in chosen], device=device) for field in range(3))
        )

    def keep(self, live: Tensor, chosen: Tensor) -> None:
        self.states = [[self.next[i][place] for place in places] for i, places in zip(live.tolist(), chosen.tolist())]


def shared_out(options: list[Option]) -> list[Option]:
    """In turn the best of each bank, the fullest bank first; each continuation once.

    What is impossible comes after the rest in its bank, but takes its turn: as in fairseq, where this decides which
    hypotheses a full beam keeps at the largest length.
    """
    falling = sorted(options, key=lambda o: (1, 0, 0.0) if o.score == NEVER else (0, -o.after.bank, -o.score))
    once = [next(same) for _, same in groupby(falling, key=lambda o: (o.row, o.token))]
    ranked = [
        (rank, -bank, option)
        for bank, each in groupby(once, key=lambda o: o.after.bank)
        for rank, option in enumerate(each)
    ]
    ranked.sort(key=lambda entry: entry[:2])
    return [option for *_, option in ranked]
