"""Drafts that are refined until they stay as they are: the search of non-autoregressive models."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError
from app.interfaces import Draft, EncoderOut, Model, Refinement, RefiningModel
from app.ranges import at_least, positive
from app.search import Hypothesis, Search
from app.search.forced import score_reference

RERANKER = "{}: refines drafts; the last checkpoint must be of a model that goes token by token"


@dataclass
class IterativeRefinementConfig:
    iter_decode_max_iter: int  # refinements after the first step
    iter_decode_eos_penalty: float  # subtracted from the log-probability of inserting nothing: above 0, longer outputs
    iter_decode_force_max_iter: bool  # take all steps, though a draft stays as it is
    iter_decode_with_beam: int  # drafts of a sentence, which differ in length
    iter_decode_with_external_reranker: bool  # the last of the checkpoints, an ordinary model, chooses among the drafts
    max_ratio: float  # outputs are at most this many times as long as their sources, where the model inserts
    retain_iter_history: bool  # also give the draft after every step

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "iter_decode_max_iter", "iter_decode_eos_penalty")
        yield from positive(self, "iter_decode_with_beam", "max_ratio")
        if self.iter_decode_with_external_reranker and self.iter_decode_with_beam == 1:
            yield "iter_decode_with_external_reranker=true: has nothing to choose from; set iter_decode_with_beam=5"


class Refined(NamedTuple):
    """One finished draft, without padding."""

    tokens: Tensor  # [T] as the model left it
    scores: Tensor  # [T] log-probabilities
    steps: int  # number of the last step, from 0
    history: list[Tensor]  # its tokens after each step, where they were asked for


class IterativeRefinement(Search):
    """A draft is done when a step changes nothing, or after the last one; of a sentence's drafts the likeliest wins.

    What the model writes between bos and eos is the output. Sources are given bos here, as in training.
    """

    refines = True

    def __init__(self, cfg: IterativeRefinementConfig, vocabulary: Vocabulary):
        self.cfg = cfg

    def check_models(self, models: list[Model]) -> None:
        reranks = self.cfg.iter_decode_with_external_reranker
        drafting, others = (models[:-1], models[-1:]) if reranks else (models, [])
        if faults := [
            *self._faults(drafting),
            *(RERANKER.format(type(each).__name__) for each in others if each.refines),
        ]:
            raise ConfigError(faults)

    def _faults(self, drafting: list[Model]) -> Iterator[str]:
        if len(drafting) != 1:
            yield "search: refines the drafts of one model; give one checkpoint, and after it a reranker if one is set"
        for model in drafting:
            if not isinstance(model, RefiningModel):
                yield f"{type(model).__name__}: makes no drafts; choose search=beam"
            elif self.cfg.iter_decode_with_beam > 1 and not model.predicts_length:
                yield f"search.iter_decode_with_beam: {type(model).__name__} predicts no lengths; set it to 1"

    @torch.inference_mode()
    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        self.check_models(models)
        model = models[0]
        assert isinstance(model, RefiningModel)
        bos = torch.full_like(src_tokens[:, :1], Vocabulary.bos)
        encoder_out = model.encode(torch.cat([bos, src_tokens], dim=1), src_lengths + 1)
        drafts = [self._hypothesis(each) for each in self.refined(model, encoder_out)]
        width = self.cfg.iter_decode_with_beam
        if self.cfg.iter_decode_with_external_reranker:
            rows = torch.arange(len(src_tokens), device=src_tokens.device).repeat_interleave(width)
            drafts = self._reranked(models[-1], src_tokens[rows], src_lengths[rows], drafts)
        groups = (drafts[i : i + width] for i in range(0, len(drafts), width))
        return [[max(group, key=lambda h: h.score)] for group in groups]

    def refined(self, model: RefiningModel, encoder_out: EncoderOut) -> list[Refined]:
        """`iter_decode_with_beam` drafts of every sentence, side by side."""
        width, last = self.cfg.iter_decode_with_beam, self.cfg.iter_decode_max_iter
        draft = model.initialize(encoder_out, width)
        live = torch.arange(len(draft.tokens), device=draft.tokens.device)
        encoder_out = encoder_out.select(live // width)
        histories: list[list[Tensor]] = [[] for _ in live]
        found: dict[int, Refined] = {}
        for step in range(last + 1):
            asked = Refinement(step, last + 1, self.cfg.iter_decode_eos_penalty, self.cfg.max_ratio)
            before, draft = draft, model.refine(draft, encoder_out, asked)
            done = (
                torch.zeros_like(live, dtype=torch.bool) if self.cfg.iter_decode_force_max_iter else same(before, draft)
            )
            done |= step == last
            for row, (number, finished) in enumerate(zip(live.tolist(), done.tolist())):
                real = draft.tokens[row].ne(Vocabulary.pad)
                if self.cfg.retain_iter_history:
                    histories[number].append(draft.tokens[row][real].cpu())
                if finished:
                    tokens, scores = draft.tokens[row][real].cpu(), draft.scores[row][real].cpu()
                    found[number] = Refined(tokens, scores, step, histories[number])
            if done.all():
                break
            left = (~done).nonzero().squeeze(1)
            draft, encoder_out, live = draft.select(left), encoder_out.select(left), live[left]
        return [found[number] for number in range(len(histories))]

    def _reranked(
        self, model: Model, src_tokens: Tensor, src_lengths: Tensor, drafts: list[Hypothesis]
    ) -> list[Hypothesis]:
        """The same outputs with the scores that an ordinary model gives them."""
        target = torch.nn.utils.rnn.pad_sequence([h.tokens for h in drafts], True, Vocabulary.pad).to(src_tokens.device)
        scored = score_reference([model], src_tokens, src_lengths, target, Vocabulary.eos, Vocabulary.pad)
        return [draft._replace(score=each.score) for draft, each in zip(drafts, scored, strict=True)]

    def _hypothesis(self, draft: Refined) -> Hypothesis:
        """The pieces between bos and eos, then eos; the score is the mean over all that was written, as in fairseq."""
        inner = draft.tokens.ne(Vocabulary.bos) & draft.tokens.ne(Vocabulary.eos)
        ends = draft.scores[draft.tokens.eq(Vocabulary.eos)][-1:]
        tokens = torch.cat([draft.tokens[inner], torch.tensor([Vocabulary.eos])])
        positional = torch.cat([draft.scores[inner], ends if len(ends) else torch.zeros(1)])
        history = draft.history if self.cfg.retain_iter_history else None
        return Hypothesis(tokens, float(draft.scores.mean()), positional, history=history)


def same(before: Draft, after: Draft) -> Tensor:
    """[B]: whether two drafts have the same tokens, however far they are padded."""
    width = max(before.tokens.size(1), after.tokens.size(1))
    a, b = (
        torch.nn.functional.pad(each, (0, width - each.size(1)), value=Vocabulary.pad)
        for each in (before.tokens, after.tokens)
    )
    return (a == b).all(1)
