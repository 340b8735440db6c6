"""Iterative refinement, on a model whose every step can be worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError
from app.interfaces import Draft, EncoderOut, Model, Refinement, RefiningModel
from tests.search.toy import VOCABULARY, TableModel, batch, strategy

BOS, PAD, EOS, UNK = Vocabulary.bos, Vocabulary.pad, Vocabulary.eos, Vocabulary.unk
A, B, C = 4, 5, 6
PIECES = [A, B, C]


class Writer(RefiningModel):
    """Each step writes the next unknown piece: that of the source, in capitals' stead the next one of the alphabet."""

    predicts_length = True
    max_positions = (50, 50)

    def __init__(self) -> None:
        Model.__init__(self, None, None)  # type: ignore[arg-type]
        self.asked: list[Refinement] = []
        self.live: list[int] = []

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        assert src_tokens[:, 0].eq(BOS).all()
        assert src_lengths.tolist() == src_tokens.ne(PAD).sum(1).tolist()
        return EncoderOut(src_tokens.unsqueeze(-1).float(), src_tokens.ne(PAD))

    def decode(self, prev_output_tokens: Tensor, encoder_out: object = None, cache: object = None) -> Tensor:
        raise AssertionError

    def project(self, features: Tensor) -> Tensor:
        raise AssertionError

    def predictions(self, batch: object) -> dict:  # type: ignore[override]
        return {}

    def initialize(self, encoder_out: EncoderOut, beam: int = 1) -> Draft:
        rows = []
        for length in encoder_out.keep.sum(1).tolist():
            rows += [torch.tensor([BOS, *[UNK] * max(length - 2 + i - beam // 2, 0), EOS]) for i in range(beam)]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, True, PAD)
        return Draft(tokens, torch.zeros(tokens.shape))

    def refine(self, draft: Draft, encoder_out: EncoderOut, refinement: Refinement) -> Draft:
        self.asked.append(refinement)
        self.live.append(len(draft.tokens))
        tokens, scores = draft.tokens.clone(), draft.scores.clone()
        for row, source in enumerate(encoder_out.states.squeeze(-1).long().tolist()):
            holes = tokens[row].eq(UNK).nonzero().flatten().tolist()
            if holes:
                at = holes[0]
                tokens[row, at] = PIECES[(source[at] - A + 1) % 3] if at < len(source) and source[at] >= A else C
                scores[row, at] = -1.0 if at < len(source) and source[at] >= A else -9.0
        return Draft(tokens, scores)


def found(model: Model | list[Model], sources: list[list[int]], **changes: object) -> list[list[int]]:
    models = model if isinstance(model, list) else [model]
    with torch.inference_mode():
        hypotheses = strategy("iterative_refinement", **changes).generate(models, *batch(sources))
    assert all(len(each) == 1 for each in hypotheses)
    return [each[0].tokens.tolist() for each in hypotheses]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), min_size=1, max_size=6), st.integers(1, 3))
def test_a_sentence_does_not_notice_its_batch(sources: list[list[int]], width: int) -> None:
    options = {"iter_decode_with_beam": width, "iter_decode_max_iter": 4}
    together = found(Writer(), sources, **options)
    assert together == [found(Writer(), [source], **options)[0] for source in sources]


def test_a_draft_is_done_when_a_step_changes_nothing() -> None:
    model = Writer()
    assert found(model, [[A, B, C], [C], [B, B]]) == [[B, C, A, EOS], [A, EOS], [C, C, EOS]]
    assert model.live == [3, 3, 2, 1], "what is done leaves the batch"
    assert [each.step for each in model.asked] == [0, 1, 2, 3]
    assert {each.max_step for each in model.asked} == {11}


def test_the_last_step_ends_a_draft_as_it_is() -> None:
    model = Writer()
    assert found(model, [[A, B, C]], iter_decode_max_iter=1) == [[B, C, UNK, EOS]]
    assert len(model.asked) == 2


def test_all_steps_where_they_are_forced() -> None:
    model = Writer()
    assert found(model, [[A]], iter_decode_max_iter=6, iter_decode_force_max_iter=True) == [[B, EOS]]
    assert model.live == [1] * 7


def test_history_has_the_draft_after_each_step() -> None:
    sources = batch([[A, B], [C]])
    with torch.inference_mode():
        (first,), (second,) = strategy("iterative_refinement", retain_iter_history=True).generate([Writer()], *sources)
    assert first.history is not None
    assert second.history is not None
    assert [each.tolist() for each in first.history] == [[BOS, B, UNK, EOS], [BOS, B, C, EOS], [BOS, B, C, EOS]]
    assert [each.tolist() for each in second.history] == [[BOS, A, EOS], [BOS, A, EOS]]


def test_scores_are_means_over_all_that_was_written() -> None:
    ((best,),) = strategy("iterative_refinement").generate([Writer()], *batch([[A, B]]))
    assert best.score == pytest.approx(-2 / 4)
    assert best.positional_scores.tolist() == [-1.0, -1.0, 0.0]


def test_of_several_lengths_the_likeliest_wins() -> None:
    assert found(Writer(), [[A, B], [C, C, C]], iter_decode_with_beam=3) == [[B, EOS], [A, A, EOS]]


def test_a_reranker_chooses_instead() -> None:
    """It is given the drafts of three lengths, and its choice is that of the best mean log-probability."""
    from app.search.forced import score_reference

    reranker, source = TableModel(), [[A, B]]
    candidates = [[B, EOS], [B, C, EOS], [B, C, C, EOS]]
    scores = []
    for each in candidates:
        (scored,) = score_reference([reranker], *batch(source), torch.tensor([each]), EOS, PAD)
        scores.append(scored.score)
    best = candidates[scores.index(max(scores))]
    options = {"iter_decode_with_beam": 3, "iter_decode_with_external_reranker": True}
    assert found([Writer(), reranker], source, **options) == [best]
    assert len({*scores}) == 3


def test_eos_penalty_and_ratio_reach_the_model() -> None:
    model = Writer()
    found(model, [[A]], iter_decode_eos_penalty=2.0, max_ratio=3.0)
    assert (model.asked[0].eos_penalty, model.asked[0].max_ratio) == (2.0, 3.0)


class Inserter(Writer):
    predicts_length = False


@pytest.mark.parametrize(
    ("models", "options", "fault"),
    [
        ([TableModel()], {}, "TableModel: makes no drafts; choose search=beam"),
        ([Writer(), Writer()], {}, "refines the drafts of one model"),
        (
            [Writer(), Writer()],
            {"iter_decode_with_beam": 2, "iter_decode_with_external_reranker": True},
            "Writer: refines drafts; the last checkpoint",
        ),
        ([Inserter()], {"iter_decode_with_beam": 2}, "Inserter predicts no lengths; set it to 1"),
    ],
)
def test_models_that_do_not_fit(models: list[Model], options: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        found(models, [[A]], **options)


def test_other_searches_refuse_models_of_drafts() -> None:
    with pytest.raises(ConfigError, match="Writer: makes drafts, .* choose search=iterative_refinement"):
        strategy("beam").check_models([Writer()])
    strategy("beam").check_models([TableModel()])


def test_an_option_that_has_nothing_to_choose_from() -> None:
    with pytest.raises(ConfigError, match="has nothing to choose from"):
        strategy("iterative_refinement", VOCABULARY, iter_decode_with_external_reranker=True)
