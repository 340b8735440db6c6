"""Diverse beam search: groups of hypotheses that are pushed apart from each other."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.ranges import at_least, positive
from app.search.beam import BeamConfig, BeamSearch
from app.search.rules import Beams, Candidates, Rule, first_rows
from app.search.steps import top_candidates


@dataclass
class DiverseBeamConfig(BeamConfig):
    diverse_beam_groups: int  # groups that the beam is divided into
    diverse_beam_strength: float  # what a token costs for each earlier group that looked at it in this step
    diversity_discount: float  # how much of the groups' likeness of earlier steps adds to the cost: 0: none, 1: all
    candidate_multiple: int  # continuations looked at, for each hypothesis of the beam

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "diverse_beam_groups", "candidate_multiple")
        yield from at_least(self, 0, "diverse_beam_strength", "diversity_discount")
        if self.diverse_beam_groups > 0 and self.beam % self.diverse_beam_groups:
            yield f"diverse_beam_groups={self.diverse_beam_groups}: must divide beam={self.beam}"


class DiverseBeamSearch(BeamSearch):
    """Beam search in groups; each pays for what the groups before it chose (Vijayakumar et al., 2016, Hamming penalty).

    The groups' likeness of earlier steps counts too, as fairseq counts it, but for the right sentence: fairseq stores
    the first step's by the place in the batch and reads it by the sample's id. Scores contain the penalties. With
    `candidate_multiple=1`, places of a beam that ended are filled by what ended; it may be taken up again, and then eos
    stands inside an output. fairseq does so by default; with 2 it does not happen.
    """

    def __init__(self, cfg: DiverseBeamConfig, vocabulary: Vocabulary):
        super().__init__(cfg, vocabulary)
        self.diverse = cfg
        self.beam = max(self.beam // cfg.diverse_beam_groups, 1) * cfg.diverse_beam_groups

    def rule(self, src_tokens: Tensor, src_lengths: Tensor) -> Rule:
        return Groups(self.diverse, self.beam, src_tokens.size(0), src_tokens.device)


class Groups(Rule):
    """Every `diverse_beam_groups`-th place of the beam belongs to the same group."""

    def __init__(self, cfg: DiverseBeamConfig, beam: int, batch: int, device: torch.device):
        super().__init__(beam)
        self.cfg = cfg
        self.likeness = torch.zeros(
            batch, cfg.diverse_beam_groups, cfg.diverse_beam_groups, device=device
        )  # [B, G, G], discounted

    def candidates(self, log_probs: Tensor, beams: Beams) -> Candidates:
        log_probs = log_probs.float()
        live, groups = beams.sentences.size(0), self.cfg.diverse_beam_groups
        each = log_probs.view(live, beams.width, -1)  # [L, k, V]
        sums = beams.scores[:, -1].view(live, beams.width, 1)
        likeness = self.likeness[beams.sentences]
        found: list[Candidates] = []
        for group in range(groups):
            first = group if beams.width > 1 else 0  # at the first step all groups start from the same row
            penalty = self._penalty(found, likeness[:, group, :group], each[:, 0])
            scored = each[:, first::groups] + sums[:, first::groups] + penalty.unsqueeze(1)
            found.append(self._best(scored, first_rows(beams) + first))
        chosen = torch.stack([candidates.tokens for candidates in found], dim=2)  # [L, C / G, G]
        alike = (chosen.unsqueeze(2) == chosen.unsqueeze(3)).sum(dim=1)
        self.likeness[beams.sentences] = (likeness + alike) * self.cfg.diversity_discount
        return Candidates(*(torch.stack(parts, dim=2).flatten(1) for parts in zip(*found)))

    def _penalty(self, found: list[Candidates], likeness: Tensor, like: Tensor) -> Tensor:
        """[L, V]: what each token costs a group after the groups before it; `likeness` [L, g]."""
        cost = torch.zeros_like(like)
        for earlier, candidates in enumerate(found):
            weights = (1 + likeness[:, earlier : earlier + 1]).expand_as(candidates.tokens)
            cost.scatter_add_(1, candidates.tokens, weights)
        return -self.cfg.diverse_beam_strength * cost

    def _best(self, scored: Tensor, first: Tensor) -> Candidates:
        """The best of one group's continuations [L, k / G, V]; its rows begin at `first` [L, 1]."""
        groups, size = self.cfg.diverse_beam_groups, scored.size(2)
        flat = scored.flatten(1)
        count = self.beam // groups * self.cfg.candidate_multiple
        scores, places = top_candidates(flat, min(count, flat.size(1) - 1))
        return Candidates(scores, places // size * groups + first, places % size)
