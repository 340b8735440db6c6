"""What beam search promises, on a model whose every output can be worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError, NumericsError
from tests.search.toy import EOS, PAD, VOCABULARY, TableLanguageModel, TableModel, all_outputs, config, log_prob, search

A, B, C = 4, 5, 6
SOURCES = st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=6), min_size=1, max_size=5)


def found(hypotheses):
    return [(h.tokens.tolist(), pytest.approx(h.score, abs=1e-4)) for h in hypotheses]


def slow_beam_search(model, source, beam, longest, lenpen, min_len):
    """One sentence, one list of hypotheses, every continuation scored by force and sorted."""
    alive, finished = [([], 0.0)], []
    for step in range(longest + 1):
        tokens = [EOS] if step == longest else [t for t in range(len(VOCABULARY)) if t != PAD]
        tokens = [t for t in tokens if t != EOS or step >= min_len or step == longest]
        continued = [([*words, t], log_prob(model, source, [*words, t])) for words, _ in alive for t in tokens]
        continued = sorted(continued, key=lambda c: -c[1])[: 2 * beam]
        finished += [c for c in continued[:beam] if c[0][-1] == EOS]
        alive = [c for c in continued if c[0][-1] != EOS][:beam]
        if len(finished) >= beam or step == longest:
            break
    scored = [(words, total / len(words) ** lenpen) for words, total in finished[:beam]]
    return sorted(scored, key=lambda c: -c[1])


@settings(deadline=None, max_examples=40)
@given(SOURCES, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.6, 1.0, 2.0]), st.integers(0, 3))
def test_a_batch_finds_what_a_slow_search_finds_one_by_one(sources, beam, longest, lenpen, min_len):
    model = TableModel()
    batch = search(model, sources, beam=beam, max_len_b=longest, lenpen=lenpen, min_len=min_len)
    for source, hypotheses in zip(sources, batch):
        assert found(hypotheses) == slow_beam_search(model, source, beam, longest, lenpen, min_len)


def test_a_beam_as_wide_as_the_choice_finds_every_output_in_order():
    model = TableModel(seed=1)
    ranked = sorted(((log_prob(model, [A], y) / len(y), y) for y in all_outputs(longest=1)), reverse=True)
    (hypotheses,) = search(model, [[A]], beam=5, max_len_b=1)
    assert found(hypotheses) == [(y, score) for score, y in ranked]


@settings(deadline=None, max_examples=30)
@given(SOURCES, st.integers(1, 5), st.floats(0, 2))
def test_scores_are_those_of_forced_decoding(sources, beam, lenpen):
    model = TableModel()
    for source, hypotheses in zip(sources, search(model, sources, beam=beam, max_len_b=8, lenpen=lenpen)):
        for h in hypotheses:
            total = log_prob(model, source, h.tokens.tolist())
            assert h.positional_scores.sum().item() == pytest.approx(total, abs=1e-4)
            assert h.score == pytest.approx(total / len(h.tokens) ** lenpen, abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(SOURCES, st.sampled_from([0.0, 0.5, 1.5]), st.booleans())
def test_a_sentence_does_not_notice_its_batch(sources, max_len_a, match_source_len):
    model = TableModel()
    options = {"beam": 3, "max_len_a": max_len_a, "max_len_b": 2, "match_source_len": match_source_len}
    together = search(model, sources, **options)
    assert [found(h) for h in together] == [found(search(model, [source], **options)[0]) for source in sources]


@settings(deadline=None, max_examples=30)
@given(SOURCES, st.integers(1, 3))
def test_no_ngram_twice(sources, size):
    for hypotheses in search(TableModel(), sources, beam=4, max_len_b=12, no_repeat_ngram_size=size):
        for h in hypotheses:
            words = h.tokens.tolist()
            ngrams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
            assert len(ngrams) == len(set(ngrams))


@pytest.mark.parametrize(("min_len", "max_len_b"), [(0, 3), (2, 2), (3, 6)])
def test_lengths_are_kept(min_len, max_len_b):
    for hypotheses in search(TableModel(), [[A, B], [C]], beam=5, min_len=min_len, max_len_b=max_len_b):
        assert all(min_len <= len(h.tokens) - 1 <= max_len_b for h in hypotheses)


def test_an_output_never_outgrows_the_model():
    model = TableModel()
    model.max_positions = (50, 4)
    (hypotheses,) = search(model, [[A]], beam=2, max_len_b=200)
    assert max(len(h.tokens) for h in hypotheses) == 4


def test_an_ensemble_stops_where_its_shortest_model_does():
    models = [TableModel(), TableModel()]
    models[1].max_positions = (50, 3)
    assert max(len(h.tokens) for h in search(models, [[A]], beam=2)[0]) == 3


def test_unnormalized_scores_are_sums():
    (hypotheses,) = search(TableModel(), [[A]], beam=3, max_len_b=5, unnormalized=True)
    assert all(h.score == pytest.approx(h.positional_scores.sum().item(), abs=1e-5) for h in hypotheses)


def test_a_suppressed_piece_never_occurs_and_unknown_is_penalised():
    plain = search(TableModel(), [[A], [B], [C]], beam=3, max_len_b=6)
    assert any(A in h.tokens for row in plain for h in row)
    changed = search(TableModel(), [[A], [B], [C]], beam=3, max_len_b=6, tokens_to_suppress=["a"], unkpen=99.0)
    assert not any(token in h.tokens for row in changed for h in row for token in (A, VOCABULARY.unk))


def test_every_output_starts_with_its_prefix():
    prefix = torch.tensor([[A, B], [C, PAD], [B, EOS]])
    rows = search(TableModel(), [[A], [B], [C]], prefix=prefix, beam=3, max_len_b=6)
    assert all(h.tokens[:2].tolist() == [A, B] for h in rows[0])
    assert all(h.tokens[0] == C for h in rows[1])
    assert all(h.tokens.tolist() == [B, EOS] for h in rows[2])


def test_prefixes_of_different_lengths_stay_with_their_sentences():
    prefix = torch.tensor([[A, EOS, PAD, PAD], [C, B, A, C], [B, PAD, PAD, PAD]])
    rows = search(TableModel(), [[A], [B], [C]], prefix=prefix, beam=3, max_len_b=6)
    assert [h.tokens.tolist() for h in rows[0]] == [[A, EOS]] * 3
    assert all(h.tokens[:4].tolist() == [C, B, A, C] for h in rows[1])


def test_the_largest_length_cuts_a_prefix():
    (hypotheses,) = search(TableModel(), [[A]], prefix=torch.tensor([[A, B, C]]), beam=2, max_len_b=1)
    assert [h.tokens.tolist() for h in hypotheses] == [[A, EOS]]


def test_what_a_language_model_continues_does_not_count():
    model = TableLanguageModel()
    model.max_positions = (50, 6)
    prompt = torch.tensor([[A, B, C, A], [C, PAD, PAD, PAD]])
    for changes in ({"max_len_b": 2}, {"max_len": 3, "max_len_b": 9}):
        long, short = search(model, [[A], [B]], prefix=prompt, beam=2, min_len=9, **changes)
        assert all(h.tokens[:4].tolist() == [A, B, C, A] for h in long)
        assert [len(h.tokens) for h in long] == [6, 6]  # what the model can represent
        assert [len(h.tokens) for h in short] == [1 + 2 + 1] * 2


def test_a_prefix_wins_over_every_ban():
    prefix = torch.tensor([[A, A, A]])
    options = {"no_repeat_ngram_size": 2, "tokens_to_suppress": ["a"], "beam": 2, "max_len_b": 5}
    (hypotheses,) = search(TableModel(), [[A]], prefix=prefix, **options)
    assert all(h.tokens[:3].tolist() == [A, A, A] and math.isfinite(h.score) for h in hypotheses)


def test_an_ensemble_averages_probabilities():
    models = [TableModel(seed=1), TableModel(seed=2)]
    (hypotheses,) = search(models, [[A, B]], beam=3, max_len_b=4)
    for h in hypotheses:
        source = torch.tensor([[A, B, EOS]])
        inputs = torch.tensor([[EOS, *h.tokens[:-1].tolist()]])
        each = [m.decode(inputs, m.encode(source, torch.tensor([3]))).softmax(dim=-1)[0] for m in models]
        mean = ((each[0] + each[1]) / 2).log()[range(len(h.tokens)), h.tokens]
        assert h.positional_scores.tolist() == pytest.approx(mean.tolist(), abs=1e-4)


def test_temperature_divides_scores_before_the_softmax():
    cold, warm = TableModel(scale=2.0), TableModel(scale=1.0)
    assert found(search(cold, [[A, B]], beam=3, temperature=2.0)[0]) == found(search(warm, [[A, B]], beam=3)[0])


def test_finished_sentences_leave_the_batch_and_the_first_step_has_one_row_each():
    model = TableModel()
    search(model, [[A], [B]], prefix=torch.tensor([[A, EOS], [A, PAD]]), beam=2, max_len_b=9, min_len=9)
    assert model.last_cache.row_steps == 2 + 4 + 8 * 2  # the first sentence is gone after the second step


def test_nbest_takes_the_first_of_all():
    wide = search(TableModel(), [[A]], beam=4, max_len_b=5)[0]
    assert found(search(TableModel(), [[A]], beam=4, nbest=2, max_len_b=5)[0]) == found(wide[:2])


def test_a_beam_wider_than_the_vocabulary_is_narrowed():
    assert len(search(TableModel(), [[A]], beam=50, nbest=1, max_len_b=3)[0]) == 1


def test_damaged_weights_are_an_error_not_a_silence():
    model = TableModel()
    model.table[:] = math.nan
    with pytest.raises(NumericsError, match="not numbers"):
        search(model, [[A]])


def test_a_sentence_without_an_output_is_an_error():
    model = TableModel()
    model.table[..., EOS] = -math.inf
    with pytest.raises(NumericsError, match="probability 0"):
        search(model, [[A]], max_len_b=3)


def test_an_unknown_piece_is_an_error():
    with pytest.raises(ConfigError, match="search.tokens_to_suppress=zzz"):
        search(TableModel(), [[A]], tokens_to_suppress=["zzz"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"beam": 0, "nbest": 0}, "beam"),
        ({"nbest": 6}, "nbest"),
        ({"temperature": 0.0}, "temperature"),
        ({"min_len": -1}, "min_len"),
        ({"max_len": 3, "min_len": 3}, "min_len"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size"),
    ],
)
def test_bad_values_are_named(changes, field):
    assert any(fault.startswith(f"{field}=") for fault in config(**changes).check())
