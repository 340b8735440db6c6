"""Every rule of a step, against a version that is slow and obvious."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.search.steps import NEVER, ban_repeated_ngrams, first_not, force, last_into_gaps, max_lengths, top_candidates

PAD, EOS = 1, 2


def banned_slowly(row: list[int], size: int) -> set[int]:
    """Tokens that would make the last `size` tokens an n-gram that stands in `row` already."""
    seen = [tuple(row[i : i + size]) for i in range(len(row) - size + 1)]
    return {token for token in range(3, 8) if (*row[len(row) - size + 1 :], token) in seen}


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(3, 7), min_size=9, max_size=9), min_size=1, max_size=4), st.integers(1, 4))
def test_an_ngram_is_never_completed_twice(rows, size):
    tokens = torch.tensor([[EOS, *row] for row in rows])
    log_probs = torch.zeros(len(rows), 8)
    log_probs[:, PAD] = NEVER
    ban_repeated_ngrams(log_probs, tokens, size, PAD, EOS)
    for row, scores in zip(tokens.tolist(), log_probs):
        assert set(scores.isneginf().nonzero().flatten().tolist()) == banned_slowly(row, size) | {PAD}


def test_a_short_row_repeats_nothing_and_may_always_end():
    log_probs = torch.zeros(1, 8)
    ban_repeated_ngrams(log_probs, torch.tensor([[EOS, 5]]), 3, PAD, EOS)
    ban_repeated_ngrams(log_probs, torch.tensor([[EOS]]), 1, PAD, EOS)
    assert log_probs[0].isneginf().nonzero().flatten().tolist() == [PAD]


def test_forced_rows_keep_one_token_with_the_score_it_is_given():
    log_probs = torch.arange(8.0).view(2, 4)
    force(log_probs, torch.tensor([3, 0]), torch.tensor([[-7.0], [0.0]]), torch.tensor([True, False]))
    assert log_probs.tolist() == [[NEVER, NEVER, NEVER, -7.0], [4.0, 5.0, 6.0, 7.0]]


@pytest.mark.parametrize(("size", "count"), [(7, 3), (4000, 10), (1283, 2), (5000, 1), (260, 60)])
def test_top_candidates_are_those_of_topk(size, count):
    scores = torch.randn(3, size)
    scores[0, 5:] = NEVER
    values, index = top_candidates(scores, count)
    assert values.equal(scores.topk(count, dim=1).values)
    assert scores.gather(1, index).equal(values)
    assert all(len(set(row)) == count for row in index.tolist())


@pytest.mark.parametrize(("parts", "size", "count"), [(5, 7, 3), (5, 1603, 10), (2, 8000, 4)])
def test_what_is_added_to_the_parts_of_a_row_decides_with_it(parts, size, count):
    scores, added = torch.randn(3, parts * size), torch.randn(3, parts)
    sums = (scores.view(3, parts, size) + added.unsqueeze(2)).flatten(1)
    values, index = top_candidates(scores, count, added)
    assert values.equal(sums.topk(count, dim=1).values)
    assert sums.gather(1, index).equal(values)


@pytest.mark.parametrize(
    ("stays", "expected"), [("11111", [0, 1, 2, 3, 4]), ("10101", [0, 4, 2]), ("00011", [3, 4]), ("11000", [0, 1])]
)
def test_the_last_fill_the_gaps(stays, expected):
    assert last_into_gaps(torch.tensor([each == "1" for each in stays])).tolist() == expected


def test_a_nan_is_never_overlooked():
    scores = torch.randn(1, 4000)
    scores[0, 1234] = math.nan
    assert top_candidates(scores, 4)[0].isnan().any()


@given(st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=3))
def test_first_not_skips_what_is_taken(rows):
    expected = [[i for i, taken in enumerate(row) if not taken] for row in rows]
    for row, found in zip(expected, first_not(torch.tensor(rows), 8).tolist()):
        assert found[: len(row)] == row


def test_largest_lengths_round_down_and_respect_the_model():
    assert max_lengths(torch.tensor([7, 6, 30]), 1.2, 2, 20).tolist() == [10, 9, 20]
