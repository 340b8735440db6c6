"""Outputs drawn at random from the model's distribution, or from its likely part."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.ranges import at_least, between
from app.search.beam import BeamConfig, BeamSearch
from app.search.rules import Beams, Candidates, Rule
from app.search.steps import NEVER


@dataclass
class SamplingConfig(BeamConfig):
    """`beam` outputs are drawn for a sentence, each on its own; the n best of them are returned."""

    sampling_topk: int  # draw from this many most likely tokens only; 0: from all
    sampling_topp: float  # draw from the fewest tokens that have this probability together; 0: from all
    sampling_minp: float  # draw from tokens at least this many times as likely as the likeliest; 0: from all
    seed: int  # of the draws, which go on from call to call: the same calls in the same order give the same outputs

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from at_least(self, 0, "sampling_topk", "seed")
        yield from between(self, 0, 1, "sampling_topp", "sampling_minp")


class Sampling(BeamSearch):
    """Top-k (Fan et al., 2018), nucleus (Holtzman et al., 2020) and min-p (Nguyen et al., 2024) sampling.

    `temperature` comes first, then top-k, top-p and min-p in turn. Scores are the model's log-probabilities, not
    renormalised over what was left. fairseq ignores top-k where top-p is given.
    """

    def __init__(self, cfg: SamplingConfig, vocabulary: Vocabulary):
        super().__init__(cfg, vocabulary)
        self.beam = cfg.beam  # one output may be drawn twice
        self.sampling = cfg
        self.random = torch.Generator().manual_seed(cfg.seed)

    def rule(self, src_tokens: Tensor, src_lengths: Tensor) -> Rule:
        return Draws(self.sampling, self.beam, self.random)


class Draws(Rule):
    """One continuation of every hypothesis; `beam` of the first."""

    def __init__(self, cfg: SamplingConfig, beam: int, random: torch.Generator):
        super().__init__(beam)
        self.cfg, self.random = cfg, random

    def candidates(self, log_probs: Tensor, beams: Beams) -> Candidates:
        log_probs = log_probs.float()
        each = self.beam // beams.width
        cfg = self.cfg
        left = likely(log_probs, cfg.sampling_topk, cfg.sampling_topp, cfg.sampling_minp).repeat_interleave(each, dim=0)
        noise = torch.empty(left.shape).exponential_(generator=self.random).to(left.device)
        tokens = (left - noise.log()).argmax(dim=1)  # the Gumbel-max trick: a draw that underflow cannot spoil
        rows = torch.arange(log_probs.size(0), device=tokens.device).repeat_interleave(each)
        scores = left.gather(1, tokens.unsqueeze(1)).squeeze(1) + beams.scores[rows, -1]
        return Candidates(*(part.view(-1, self.beam) for part in (scores, rows, tokens)))


def likely(log_probs: Tensor, topk: int, topp: float, minp: float) -> Tensor:
    """[N, V] with -inf wherever a token is not among the likely ones. A rule that is 0 leaves all; one always stays."""
    if topk:
        least = log_probs.topk(min(topk, log_probs.size(1)), dim=1).values[:, -1:]
        log_probs = log_probs.masked_fill(log_probs < least, NEVER)
    if topp:
        falling, order = log_probs.sort(dim=1, descending=True)
        before = falling.exp().cumsum(dim=1).roll(1, dims=1)  # the probability of all that is likelier
        before[:, 0] = 0
        log_probs = log_probs.masked_fill((before >= topp).gather(1, order.argsort(dim=1)), NEVER)
    if minp:
        least = log_probs.amax(dim=1, keepdim=True) + torch.tensor(minp).log()
        log_probs = log_probs.masked_fill(log_probs < least, NEVER)
    return log_probs
