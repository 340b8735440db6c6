"""What each strategy promises, on a model whose every output can be worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.vocabulary import Vocabulary
from app.errors import ConfigError, NumericsError
from app.search.beam import BeamConfig
from app.search.constraints import Ordered, Unordered
from app.search.forced import score_reference
from app.search.prefix_constrained import PrefixConstrainedSearch
from app.search.sampling import likely
from tests.search.test_beam import SOURCES, A, B, C
from tests.search.toy import EOS, PAD, VOCABULARY, TableModel, batch, config, log_prob, search, strategy, values

PHRASES = st.lists(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=3), max_size=3)

FAMILY = ["beam", "sampling", "mbr", "diverse_beam", "diverse_siblings", "lexically_constrained"]
FAMILY += ["length_constrained"]
SEEDED = ("sampling", "mbr")
EXACT = {  # what it takes for scores to be the model's own: no penalties, nothing left out, no end that is free
    "length_constrained": {"free_len_a": 99.0},
    "diverse_beam": {"diverse_beam_strength": 0.0},
    "diverse_siblings": {"diversity_rate": 0.0},
    "sampling": {"sampling_topp": 0.0},
}


def found(option, sources, model=None, **changes):
    changes.setdefault("nbest", changes.get("beam", values(option)["beam"]))
    return strategy(option, **changes).generate([model or TableModel()], *batch(sources))


def occurrences(words, phrase):
    return sum(words[i : i + len(phrase)] == phrase for i in range(len(words)))


def in_order(words, phrases):
    """Whether the phrases stand one after another."""
    if not phrases:
        return True
    first, *rest = phrases
    starts = (i for i in range(len(words)) if words[i : i + len(first)] == first)
    return any(in_order(words[i + len(first) :], rest) for i in starts)


@settings(deadline=None, max_examples=40)
@given(SOURCES, st.data(), st.integers(2, 5), st.sampled_from(["ordered", "unordered"]))
def test_constraints_are_always_met(sources, data, beam, order):
    constraints = [data.draw(PHRASES) for _ in sources]
    search = strategy("lexically_constrained", constraints=order, beam=beam, nbest=beam, max_len_b=30)
    outputs = search.generate([TableModel()], *batch(sources), constraints=constraints)
    for phrases, hypotheses in zip(constraints, outputs):
        for h in hypotheses:
            words = h.tokens.tolist()
            assert all(occurrences(words, phrase) >= phrases.count(phrase) for phrase in phrases)
            assert order == "unordered" or in_order(words, phrases)


@settings(deadline=None, max_examples=20)
@given(SOURCES, st.integers(1, 4))
def test_without_constraints_the_best_output_is_that_of_beam_search(sources, beam):
    plain = search(TableModel(), sources, beam=beam, max_len_b=6)
    options = {"beam": beam, "max_len_b": 6}
    for option, own in (
        ("lexically_constrained", {}),
        ("diverse_siblings", {"diversity_rate": 0.0}),
        ("diverse_beam", {"diverse_beam_groups": 1}),
        ("length_constrained", {"min_len_a": 0.0, "free_len_a": 99.0}),
    ):
        rows = found(option, sources, **options, **own)
        assert [row[0].tokens.tolist() for row in rows] == [row[0].tokens.tolist() for row in plain]


@settings(deadline=None, max_examples=30)
@given(SOURCES, st.integers(1, 3), st.integers(0, 3), st.sampled_from(FAMILY))
def test_no_strategy_repeats_an_ngram_that_is_forbidden(sources, size, seed, option):
    options = {"beam": 3, "max_len_b": 12, "no_repeat_ngram_size": size} | ({"seed": seed} if option in SEEDED else {})
    for hypotheses in found(option, sources, **options):
        for h in hypotheses:
            words = h.tokens.tolist()
            ngrams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
            assert len(ngrams) == len(set(ngrams))


@settings(deadline=None, max_examples=30)
@given(SOURCES, st.integers(0, 3), st.sampled_from(FAMILY), st.booleans())
def test_every_strategys_scores_are_those_of_forced_decoding(sources, seed, option, two):
    models = [TableModel(seed=1), TableModel(seed=2)] if two else [TableModel()]
    options = {"beam": 3, "nbest": 3, "max_len_b": 8, **EXACT.get(option, {})} | (
        {"seed": seed} if option in SEEDED else {}
    )
    for source, hypotheses in zip(sources, strategy(option, **options).generate(models, *batch(sources))):
        for h in hypotheses:
            src, lengths = batch([source])
            (forced,) = score_reference(models, src, lengths, h.tokens.unsqueeze(0), EOS, PAD)
            assert h.positional_scores.tolist() == pytest.approx(forced.positional_scores.tolist(), abs=1e-4)
            assert h.score == pytest.approx(forced.score, abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(SOURCES, st.sampled_from([option for option in FAMILY if option not in SEEDED]))
def test_a_sentence_does_not_notice_its_batch_in_any_strategy(sources, option):
    def outputs(rows):
        return [[(h.tokens.tolist(), pytest.approx(h.score, abs=1e-4)) for h in row] for row in rows]

    options = {"beam": 3, "max_len_b": 8}
    alone = [found(option, [source], **options)[0] for source in sources]
    assert outputs(found(option, sources, **options)) == outputs(alone)


@settings(deadline=None, max_examples=30)
@given(SOURCES, st.data(), st.integers(1, 2))
def test_constraints_are_met_or_refused_where_ngrams_are_forbidden(sources, data, size):
    constraints = [data.draw(PHRASES) for _ in sources]
    search = strategy("lexically_constrained", beam=4, nbest=4, max_len_b=20, no_repeat_ngram_size=size)
    try:
        outputs = search.generate([TableModel()], *batch(sources), constraints=constraints)
    except NumericsError:  # told, where a phrase repeats itself, or the words that are left do not suffice
        return
    for phrases, hypotheses in zip(constraints, outputs):
        for h in hypotheses:
            words = h.tokens.tolist()
            assert all(occurrences(words, phrase) >= phrases.count(phrase) for phrase in phrases)
            ngrams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
            assert len(ngrams) == len(set(ngrams))


def test_progress_with_constraints_that_begin_alike():
    state = Unordered.start([[A], [A, B], [A, B]])
    banks = []
    for token in (A, B, C, A, A, B):
        state = state.advance(token)
        banks.append(state.bank)
    assert banks == [1, 2, 2, 3, 4, 5]
    assert state.finished


def test_an_ordered_constraint_that_breaks_off_starts_anew():
    state = Ordered.start([[A], [B, C]])
    banks = []
    for token in (C, A, C, B, B, A, B, C, A):
        state = state.advance(token)
        banks.append(state.bank)
    assert banks == [0, 1, 1, 2, 0, 1, 2, 3, 3]
    assert state.finished


def test_groups_differ_more_where_diversity_is_stronger():
    def firsts(strength):
        rows = found("diverse_beam", [[A], [B], [C]], beam=3, diverse_beam_strength=strength, max_len_b=6, nbest=3)
        return sum(len({h.tokens[0].item() for h in row}) for row in rows)

    assert firsts(3.0) > firsts(0.0) == 3


@settings(deadline=None, max_examples=20)
@given(SOURCES)
def test_lengths_follow_the_source(sources):
    lengths = {"min_len_a": 1.0, "min_len_b": 1, "free_len_a": 1.0, "free_len_b": 2}
    for source, hypotheses in zip(sources, found("length_constrained", sources, beam=3, max_len_b=20, **lengths)):
        assert all(len(h.tokens) - 1 >= len(source) + 2 for h in hypotheses)


@settings(deadline=None, max_examples=20)
@given(SOURCES)
def test_the_largest_length_wins_over_the_least(sources):
    lengths = {"min_len_a": 9.0, "free_len_a": 99.0, "max_len_b": 4}
    for hypotheses in found("length_constrained", sources, beam=3, **lengths):
        assert [len(h.tokens) - 1 for h in hypotheses] == [4, 4, 4]


def test_samples_have_the_models_distribution():
    model = TableModel(scale=1.0)
    count = 4000
    ((hypotheses),) = found("sampling", [[A]], model, beam=count, sampling_topp=0.0, max_len_b=1, min_len=0)
    assert len(hypotheses) == count
    drawn = [h.tokens.tolist() for h in hypotheses]
    for output in ([EOS], [B, EOS], [C, EOS]):
        pad, probability = (math.exp(log_prob(model, [A], [token])) for token in (PAD, output[0]))
        assert drawn.count(output) / count == pytest.approx(probability / (1 - pad), abs=0.03)


@settings(deadline=None, max_examples=20)
@given(SOURCES, st.integers(0, 3))
def test_a_seed_gives_the_same_samples_with_the_models_scores(sources, seed):
    model = TableModel()
    options = {"beam": 3, "max_len_b": 6, "seed": seed, "no_repeat_ngram_size": 1}
    first, second = found("sampling", sources, **options), found("sampling", sources, **options)
    assert [[h.tokens.tolist() for h in row] for row in first] == [[h.tokens.tolist() for h in row] for row in second]
    for source, row in zip(sources, first):
        assert len(row) == 3
        for h in row:
            words = h.tokens.tolist()
            assert len(words) == len(set(words))
            assert h.positional_scores.sum().item() == pytest.approx(log_prob(model, source, words), abs=1e-4)


def test_unlikely_tokens_are_left_out():
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = [likely(log_probs, *rule).exp().gt(0).sum().item() for rule in ((2, 0, 0), (0, 0.79, 0), (0, 0.81, 0))]
    assert kept == [2, 2, 3]
    assert likely(log_probs, 0, 0, 0.2).exp().gt(0).sum() == 3
    assert likely(log_probs, 1, 0.9, 0.9).exp().gt(0).tolist() == [[True, False, False, False]]
    assert likely(log_probs, 0, 0.0, 0.0).equal(log_probs)


def test_given_outputs_are_scored():
    model = TableModel()
    target = torch.tensor([[A, B, EOS], [C, EOS, PAD]])
    first, second = score_reference([model], *batch([[A], [B]]), target, EOS, PAD)
    assert first.score == pytest.approx(log_prob(model, [A], [A, B, EOS]) / 3, abs=1e-5)
    assert second.tokens.tolist() == [C, EOS]
    assert second.positional_scores.sum().item() == pytest.approx(log_prob(model, [B], [C, EOS]), abs=1e-5)


def test_only_what_is_allowed_occurs():
    choices = ["a b", "c c a", "b"]
    (row,) = found("prefix_constrained", [[A]], choices=choices, beam=3)
    texts = sorted(" ".join(VOCABULARY.decode(h.tokens.tolist())) for h in row)
    assert texts == sorted(choices)
    with pytest.raises(ConfigError, match="zzz"):
        found("prefix_constrained", [[A]], choices=["a zzz"])


class CopiesTheSource(PrefixConstrainedSearch):
    """What a user would write: any of the source's tokens, as often as it has them."""

    def __init__(self, cfg: BeamConfig, vocabulary: Vocabulary):
        super().__init__(cfg, vocabulary)

    def allowed_tokens(self, source, output):
        return [token for token in source if output.count(token) < source.count(token)]


@settings(deadline=None, max_examples=20)
@given(SOURCES, st.integers(1, 4))
def test_a_class_of_the_users_allows_tokens(sources, beam):
    search = CopiesTheSource(config(beam=beam, nbest=beam), VOCABULARY)
    for source, row in zip(sources, search.generate([TableModel()], *batch(sources))):
        assert row
        assert all(h.tokens.tolist().count(token) <= source.count(token) for h in row for token in (A, B, C))


def test_a_language_model_adds_its_log_probabilities():
    model, lm = TableModel(seed=1), TableModel(seed=2)
    fused = strategy("beam", beam=3, nbest=3, max_len_b=4, lm_weight=0.5)
    fused.lm = lm
    ((hypotheses),) = fused.generate([model], *batch([[A, B]]))
    for h in hypotheses:
        words = h.tokens.tolist()
        total = log_prob(model, [A, B], words) + 0.5 * log_prob(lm, None, words)
        assert h.positional_scores.sum().item() == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("utility", ["chrf", "bleu"])
def test_the_least_risk_is_the_output_most_like_the_others(utility):
    rows = found("mbr", [[A], [B]], beam=30, nbest=30, utility=utility, max_len_b=4)
    for row in rows:
        texts = [h.tokens.tolist() for h in row]
        assert len(row) == len({tuple(text) for text in texts}) <= 30
