"""Beam search over a batch, with fairseq's rules for what is a candidate, when a sentence is done, and what wins."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError, NumericsError
from app.interfaces import LanguageModel, Model
from app.ranges import at_least, positive
from app.search import Hypothesis, Search
from app.search.alignment import with_attention
from app.search.ensemble import Ensemble
from app.search.rules import Beams, Candidates, Rule
from app.search.steps import NEVER, ban_repeated_ngrams, first_not, force, last_into_gaps, max_lengths


@dataclass
class BeamConfig:
    """Lengths are in tokens without eos, unless they say otherwise; the longest, without a language model's prompt."""

    beam: int  # hypotheses kept at every step; 1: greedy
    nbest: int  # hypotheses returned for a sentence
    lenpen: float  # scores are divided by (length with eos) ** lenpen: above 1 favours long outputs
    unnormalized: bool  # compare sums of log-probabilities instead; lenpen has no effect then
    unkpen: float  # subtracted from the log-probability of <unk>
    temperature: float  # divides the scores before the softmax: below 1 sharpens
    min_len: int  # shortest output; max_len_a, max_len_b and the model's limit win over it
    max_len_a: float  # the longest output is max_len_a * source length (with eos) + max_len_b
    max_len_b: int  # see max_len_a
    max_len: int  # longest output with eos, whatever the source; 0: what the model can represent
    padded_max_len: bool  # max_len_a takes the batch's width, as in fairseq, so that outputs depend on batches
    match_source_len: bool  # outputs are at most as long as their source with eos, in place of max_len_a and max_len_b
    no_repeat_ngram_size: int  # no n-gram of this size occurs twice in an output; 0: no rule
    tokens_to_suppress: list[str]  # pieces that no output may have
    bos_token: str | None  # piece that the decoder starts from; null: eos
    eos_token: str | None  # piece that ends an output; null: </s>
    lm_path: str | None  # run or checkpoint of a language model with the same target vocabulary; null: none
    lm_weight: float  # what its log-probabilities are multiplied with before they are added to the models'
    print_alignment: bool  # also give the attention to the source, for alignments

    def check(self) -> Iterator[str]:
        yield from positive(self, "beam", "nbest", "temperature")
        yield from at_least(self, 0, "min_len", "max_len_a", "max_len_b", "max_len", "no_repeat_ngram_size")
        if self.lm_path is not None and not Path(self.lm_path).is_dir():
            yield f"lm_path={self.lm_path}: no such directory; give a run directory, such as outputs/RUN"
        if self.nbest > self.beam:
            yield f"nbest={self.nbest}: must not be more than beam={self.beam}"
        if self.max_len and self.min_len >= self.max_len:
            yield f"min_len={self.min_len}: must be less than max_len={self.max_len}"


class BeamSearch(Search):
    """At each step the 2 * beam best continuations of a sentence are looked at.

    Those of the first `beam` that end become hypotheses; the first `beam` that do not end live on. A sentence is done
    when it has `beam` hypotheses, or at its largest length, where eos is the only continuation; it leaves the batch.
    Other strategies look at other continuations: they are this search with another `rule`.
    """

    def __init__(self, cfg: BeamConfig, vocabulary: Vocabulary):
        self.cfg = cfg
        self.lm_path = cfg.lm_path
        self.pad, self.unk = vocabulary.pad, vocabulary.unk
        self.eos = vocabulary.eos if cfg.eos_token is None else _index(vocabulary, "eos_token", cfg.eos_token)
        self.bos = self.eos if cfg.bos_token is None else _index(vocabulary, "bos_token", cfg.bos_token)
        self.banned = [self.pad, *(_index(vocabulary, "tokens_to_suppress", t) for t in cfg.tokens_to_suppress)]
        self.beam = min(cfg.beam, len(vocabulary) - 2)  # pad is never a continuation, and eos never lives on

    def between(self, bos: int, eos: int) -> "BeamSearch":
        other = copy.copy(self)
        other.eos = eos if self.cfg.eos_token is None else self.eos
        other.bos = bos if self.cfg.bos_token is None else self.bos
        return other

    def rule(self, src_tokens: Tensor, src_lengths: Tensor) -> Rule:
        """How this batch's continuations are chosen."""
        return Rule(self.beam)

    @torch.inference_mode()
    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """See `Search`. Rows of `prefix_tokens` are padded at the end and may end with eos. Results are on the CPU."""
        return self.search(models, src_tokens, src_lengths, prefix_tokens, self.rule(src_tokens, src_lengths))

    def search(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None, rule: Rule
    ) -> list[list[Hypothesis]]:
        if self.lm_path is not None and self.lm is None:
            raise ConfigError([f"search.lm_path={self.lm_path}: has not been loaded (app.inference.load_search does)"])
        ensemble = Ensemble(models, src_tokens, src_lengths, self.cfg.temperature, self.lm, self.cfg.lm_weight)
        sources = ensemble.encoder_outs
        limits = self.limits(src_tokens, src_lengths, self._prompts(models, prefix_tokens), ensemble.max_len)
        beams = self._start(src_tokens)
        finished: list[list[Hypothesis]] = [[] for _ in src_tokens]
        for step in range(int(limits.max()) + 1):
            at_limit = limits[beams.sentences] <= step
            log_probs = ensemble.log_probs(beams.tokens[:, -1])
            log_probs, beams = self._constrain(log_probs, beams, at_limit, prefix_tokens)
            candidates, ends = self._candidates(rule.candidates(log_probs, beams), beams)
            self._finish(candidates, ends, beams, src_lengths, finished)
            full = [len(finished[sentence]) >= self.beam for sentence in beams.sentences.tolist()]
            done = at_limit | torch.tensor(full, device=at_limit.device)
            if done.all():
                break
            beams = self._advance(candidates, ends, beams, done, ensemble, rule)
        best = [sorted(each, key=lambda h: h.score, reverse=True)[: self.cfg.nbest] for each in finished]
        if not all(best):
            raise NumericsError("search: every output of a sentence has probability 0; allow more tokens or outputs")
        return with_attention(models, sources, best, self.bos, self.pad) if self.cfg.print_alignment else best

    def _prompts(self, models: list[Model], prefix_tokens: Tensor | None) -> Tensor | int:
        """How many tokens [B] of each output are given: the prefix, where language models are to continue it."""
        if prefix_tokens is None or not all(isinstance(model, LanguageModel) for model in models):
            return 0
        return prefix_tokens.ne(self.pad).sum(dim=1)

    def limits(self, src_tokens: Tensor, src_lengths: Tensor, prompts: Tensor | int, max_positions: int) -> Tensor:
        """Most tokens before eos of each sentence's outputs: [B]."""
        most, last = (self.cfg.max_len or max_positions) - 1, max_positions - 1
        if self.cfg.match_source_len:
            longest = src_lengths.max().expand_as(src_lengths) if self.cfg.padded_max_len else src_lengths
            return longest.clamp(max=min(most, last))
        lengths = torch.full_like(src_lengths, src_tokens.size(1)) if self.cfg.padded_max_len else src_lengths
        return (max_lengths(lengths, self.cfg.max_len_a, self.cfg.max_len_b, most) + prompts).clamp(max=last)

    def _start(self, src_tokens: Tensor) -> Beams:
        """One row a sentence: the first step has nothing to choose between."""
        batch, device = src_tokens.size(0), src_tokens.device
        first = torch.full((batch, 1), self.bos, device=device)
        return Beams(torch.arange(batch, device=device), first, torch.zeros(batch, 1, device=device))

    def _constrain(
        self, log_probs: Tensor, beams: Beams, at_limit: Tensor, prefix_tokens: Tensor | None
    ) -> tuple[Tensor, Beams]:
        """What the options forbid of [N, V], in place, then what must be: eos at the largest length, and the prefix."""
        if self.cfg.unkpen:
            log_probs[:, self.unk] -= self.cfg.unkpen
        must, closed = self._must(beams, at_limit, prefix_tokens)
        kept = None if must is None else log_probs.gather(1, must.unsqueeze(1))
        log_probs[:, self.banned] = NEVER
        if beams.step < self.cfg.min_len:
            log_probs[:, self.eos] = NEVER
        if self.cfg.no_repeat_ngram_size:
            ban_repeated_ngrams(log_probs, beams.tokens, self.cfg.no_repeat_ngram_size, self.pad, self.eos)
        if must is not None and kept is not None:
            force(log_probs, must, kept, must != self.pad)
        if closed is None:
            return log_probs, beams
        rows = torch.arange(log_probs.size(0), device=log_probs.device)  # a prefix that ends: all beams are the first
        rows = torch.where(closed.repeat_interleave(beams.width), rows // beams.width * beams.width, rows)
        return log_probs[rows], beams._replace(tokens=beams.tokens[rows], scores=beams.scores[rows])

    def _must(
        self, beams: Beams, at_limit: Tensor, prefix_tokens: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The only token [N] each row may go on with, pad where it is free; and the sentences [L] whose prefix ends."""
        if prefix_tokens is not None and beams.step < prefix_tokens.size(1):
            prefix = prefix_tokens[beams.sentences, beams.step]
            must = prefix.masked_fill(at_limit, self.eos)
            closed = (prefix == self.eos) & ~at_limit
            return must.repeat_interleave(beams.width), closed if closed.any() else None
        if at_limit.any():
            return torch.where(at_limit, self.eos, self.pad).repeat_interleave(beams.width), None
        return None, None

    def _candidates(self, candidates: Candidates, beams: Beams) -> tuple[Candidates, Tensor]:
        """The same, checked, and where they end a hypothesis [L, C]."""
        if candidates.scores.isnan().any():
            raise NumericsError("search: the model's scores are not numbers; its weights or its input are damaged")
        impossible = candidates.scores.isneginf()
        tokens = candidates.tokens.masked_fill(impossible, self.eos)  # any token: nothing comes of them
        ends = tokens.eq(self.eos) & ~impossible
        if beams.idle is not None:
            ends[:, : self.beam] &= ~beams.idle
        return candidates._replace(tokens=tokens), ends

    def _finish(
        self,
        candidates: Candidates,
        ends: Tensor,
        beams: Beams,
        src_lengths: Tensor,
        finished: list[list[Hypothesis]],
    ) -> None:
        """Those of the first `beam` candidates that end become hypotheses, until a sentence has `beam` of them."""
        ends = ends[:, : self.beam]
        rows = candidates.rows[:, : self.beam][ends]
        if not rows.numel():
            return
        length = beams.step + 1  # eos counted
        sums = torch.cat([beams.scores[rows], candidates.scores[:, : self.beam][ends].unsqueeze(1)], dim=1)
        scores = sums[:, -1] if self.cfg.unnormalized else sums[:, -1] / length**self.cfg.lenpen
        sentences = beams.sentences.unsqueeze(1).expand_as(ends)[ends]
        if self.cfg.match_source_len:
            scores = scores.masked_fill(src_lengths[sentences] < beams.step, NEVER)
        tokens = torch.cat([beams.tokens[rows, 1:], torch.full_like(rows, self.eos).unsqueeze(1)], dim=1).cpu()
        positional = sums.diff(dim=1).cpu()
        for i, (sentence, score) in enumerate(zip(sentences.tolist(), scores.tolist())):
            if len(finished[sentence]) < self.beam:
                finished[sentence].append(Hypothesis(tokens[i], score, positional[i]))

    def _advance(
        self, candidates: Candidates, ends: Tensor, beams: Beams, done: Tensor, ensemble: Ensemble, rule: Rule
    ) -> Beams:
        """The first `beam` candidates that do not end, of the sentences that are not done.

        A rule that gives less than 2 * beam candidates may leave fewer than that: the rest of the beam is idle.
        """
        if beams.idle is not None:
            ends[:, : self.beam] |= beams.idle
        sentences, live = beams.sentences, torch.arange(beams.sentences.size(0), device=done.device)
        if done.any():
            live = last_into_gaps(~done)
            ensemble.keep_sentences(live)
            candidates = Candidates(*(each[live] for each in candidates))
            sentences, ends = sentences[live], ends[live]
        chosen = first_not(ends, self.beam)
        rule.keep(live, chosen)
        scores, rows, tokens = (each.gather(1, chosen).view(-1) for each in candidates)
        ensemble.reorder(rows)
        return Beams(
            sentences,
            torch.cat([beams.tokens[rows], tokens.unsqueeze(1)], dim=1),
            torch.cat([beams.scores[rows], scores.unsqueeze(1)], dim=1),
            ends.gather(1, chosen) if ends.size(1) < 2 * self.beam else None,
        )


def _index(vocabulary: Vocabulary, field: str, piece: str) -> int:
    index = vocabulary.index(piece)
    if vocabulary.pieces[index] != piece:
        raise ConfigError([f"search.{field}={piece}: not a piece of the target vocabulary"])
    return index
