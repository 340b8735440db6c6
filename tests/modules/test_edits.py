"""Alignments against an obvious implementation, and what they are used for."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.models.insertion_transformer import gap_labels
from app.modules.edits import align, inserted, with_gaps, within, without

BOS, PAD, EOS, UNK = 0, 1, 2, 3
WORDS = st.lists(st.integers(4, 7), max_size=6)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)


def rows(lists: list[list[int]]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor([BOS, *each, EOS]) for each in lists], True, PAD)


def distance(x: list[int], y: list[int]) -> int:
    """Insertions and deletions from x to y, by the definition."""
    if not x or not y:
        return len(x) + len(y)
    if x[-1] == y[-1]:
        return distance(x[:-1], y[:-1])
    return 1 + min(distance(x[:-1], y), distance(x, y[:-1]))


def path(x: list[int], y: list[int]) -> tuple[list[bool], list[int]]:
    """The way back through the table of distances: inserting first, then deleting, then keeping."""
    table = {(i, j): distance(x[:i], y[:j]) for i in range(len(x) + 1) for j in range(len(y) + 1)}
    kept, gap, i, j = [False] * len(x), [-1] * len(y), len(x), len(y)
    while i or j:
        if j and table[i, j - 1] < table[i, j]:
            j -= 1
            gap[j] = i
        elif i and table[i - 1, j] < table[i, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            kept[i] = True
    return kept, gap


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_alignments_are_those_of_the_slow_way(pairs: list[tuple[list[int], list[int]]]) -> None:
    x, y = rows([a for a, _ in pairs]), rows([b for _, b in pairs])
    found = align(x, y, PAD)
    for row, (a, b) in enumerate(pairs):
        kept, gap = path([BOS, *a, EOS], [BOS, *b, EOS])
        assert found.kept[row].tolist() == kept + [False] * (x.size(1) - len(kept))
        assert found.gap[row].tolist() == gap + [-1] * (y.size(1) - len(gap))


@settings(deadline=None, max_examples=60)
@given(PAIRS)
def test_the_edits_make_the_one_row_of_the_other(pairs: list[tuple[list[int], list[int]]]) -> None:
    x, y = rows([a for a, _ in pairs]), rows([b for _, b in pairs])
    marks = torch.arange(x.numel()).view_as(x).float()
    left, left_marks = without(x, marks, ~align(x, y, PAD).kept, PAD)
    assert left.eq(PAD).all(0).sum() == 0, "no column is empty"
    gap = align(left, y, PAD).gap
    opened, opened_marks = with_gaps(left, left_marks, inserted(gap, left.size(1) - 1), PAD, UNK)
    assert opened.tolist() == y.masked_fill(gap.ge(0) & y.ne(PAD), UNK).tolist()
    old = opened.ne(UNK) & opened.ne(PAD)
    assert x.flatten()[opened_marks[old].long()].tolist() == opened[old].tolist(), "scores went with their pieces"


def test_insertions_stop_where_the_room_ends() -> None:
    counts = torch.tensor([[1, 2, 0, 3], [0, 1, 0, 1]])
    assert within(counts, torch.tensor([4, 0])).tolist() == [[1, 2, 0, 1], [0, 0, 0, 0]]
    assert within(counts, torch.tensor([9, -1])).tolist() == [[1, 2, 0, 3], [0, 0, 0, 0]]


def test_labels_of_gaps() -> None:
    """bos _ 5 eos, and the target bos 4 6 4 5 eos: one gap lacks three pieces, one of them twice, the other none."""
    draft, target = torch.tensor([[BOS, 5, EOS, PAD]]), torch.tensor([[BOS, 4, 6, 4, 5, EOS]])
    alike = gap_labels(draft, target, 8, None)[0]
    assert alike[0].tolist() == torch.tensor([0, 0, 0, 0, 2 / 3, 0, 1 / 3, 0]).tolist()
    assert alike[1].tolist() == torch.nn.functional.one_hot(torch.tensor(PAD), 8).tolist()
    middle = gap_labels(draft, target, 8, 0.5)[0][0]
    near, far = 1.0, torch.tensor(-2.0).exp()
    torch.testing.assert_close(middle[6] / middle[4], near / (2 * far))
    torch.testing.assert_close(middle.sum(), torch.tensor(1.0))
