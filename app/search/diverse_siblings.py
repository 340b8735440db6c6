"""Beam search that does not let the continuations of one hypothesis fill the beam."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.ranges import at_least
from app.search.beam import BeamConfig, BeamSearch
from app.search.rules import Beams, Candidates, Rule, best_of_all


@dataclass
class DiverseSiblingsConfig(BeamConfig):
    diversity_rate: float  # what the n-th best continuation of a hypothesis costs, n times; 0: plain beam search

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from at_least(self, 0, "diversity_rate")


class DiverseSiblingsSearch(BeamSearch):
    """Siblings pay for their rank among each other (Li et al., 2016, "A simple, fast diverse decoding algorithm").

    The first step has one hypothesis only, and no cost. Scores contain the costs.
    """

    def __init__(self, cfg: DiverseSiblingsConfig, vocabulary: Vocabulary):
        super().__init__(cfg, vocabulary)
        self.diversity_rate = cfg.diversity_rate

    def rule(self, src_tokens: Tensor, src_lengths: Tensor) -> Rule:
        return Siblings(self.beam, self.diversity_rate)


class Siblings(Rule):
    def __init__(self, beam: int, diversity_rate: float):
        super().__init__(beam)
        self.diversity_rate = diversity_rate

    def candidates(self, log_probs: Tensor, beams: Beams) -> Candidates:
        log_probs = log_probs.float()
        count = 2 * self.beam
        if not beams.step:
            return best_of_all(log_probs, beams, count)
        scores, tokens = log_probs.add_(beams.scores[:, -1:]).topk(min(count, log_probs.size(1)), dim=1)  # [N, R]
        ranks = torch.arange(1, scores.size(1) + 1, device=scores.device)
        rows = torch.arange(scores.size(0), device=scores.device).unsqueeze(1).expand_as(tokens)
        live = beams.sentences.size(0)
        best, places = (scores - ranks * self.diversity_rate).view(live, -1).topk(count, dim=1)
        return Candidates(best, rows.reshape(live, -1).gather(1, places), tokens.view(live, -1).gather(1, places))
