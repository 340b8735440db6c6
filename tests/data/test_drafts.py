"""Noise that makes drafts of targets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.batch import Batch
from app.data.drafts import NOISES, DraftSamples
from app.data.vocabulary import Vocabulary

BOS, PAD, EOS, UNK = Vocabulary.bos, Vocabulary.pad, Vocabulary.eos, Vocabulary.unk
TARGETS = st.lists(st.lists(st.integers(4, 9), min_size=1, max_size=7), min_size=1, max_size=5)


class Pairs:
    """Two sentences, each with itself."""

    weights = np.ones(2)
    source_lengths = target_lengths = np.array([4, 2])

    def collate(self, samples: np.ndarray) -> Batch:
        tokens = torch.tensor([[5, 6, 7, EOS], [8, EOS, PAD, PAD]])[samples]
        lengths = torch.from_numpy(self.source_lengths[samples])
        return Batch(torch.from_numpy(samples), tokens, lengths, tokens, tokens, int(lengths.sum()))


def noised(name: str, rows: list[list[int]], seed: int) -> list[list[int]]:
    """Each row's draft, without padding, which must stand at the end."""
    width = max(map(len, rows)) + 2
    target = np.array([[BOS, *row, EOS] + [PAD] * (width - 2 - len(row)) for row in rows])
    before = target.copy()
    out = NOISES[name](target, np.random.default_rng(seed))
    assert (target == before).all(), "the target is left as it is"
    drafts = [[token for token in row if token != PAD] for row in out.tolist()]
    assert [row[: len(draft)] for row, draft in zip(out.tolist(), drafts)] == drafts
    return drafts


def is_part(draft: list[int], row: list[int]) -> bool:
    rest = iter(row)
    return all(token in rest for token in draft)


@settings(deadline=None)
@given(TARGETS, st.integers(0, 99))
def test_each_noise(rows: list[list[int]], seed: int) -> None:
    whole = [[BOS, *row, EOS] for row in rows]
    assert noised("no_noise", rows, seed) == whole
    assert noised("full_mask", rows, seed) == [[BOS, *[UNK] * len(row), EOS] for row in rows]
    for row, draft in zip(whole, noised("random_mask", rows, seed)):
        assert len(draft) == len(row)
        assert 1 <= draft.count(UNK) <= len(row) - 2
        assert all(new in (old, UNK) for old, new in zip(row, draft))
    for row, draft in zip(whole, noised("random_delete", rows, seed)):
        assert (draft[0], draft[-1]) == (BOS, EOS)
        assert 2 <= len(draft) < len(row)
        assert is_part(draft, row)


@pytest.mark.parametrize(("name", "counted"), [("random_mask", UNK), ("random_delete", None)])
def test_all_numbers_are_alike(name: str, counted: int | None) -> None:
    drafts = noised(name, [[4, 5, 6, 7]] * 2000, seed=1)
    numbers = [draft.count(UNK) if counted else 6 - len(draft) for draft in drafts]
    assert all(430 < numbers.count(each) < 570 for each in (1, 2, 3, 4))


def test_a_batch_has_bos_on_both_sides() -> None:
    batch = DraftSamples(Pairs(), NOISES["full_mask"], seed=1).collate(np.array([0, 1]))
    assert batch.src_tokens.tolist() == batch.target.tolist() == [[BOS, 5, 6, 7, EOS], [BOS, 8, EOS, PAD, PAD]]
    assert batch.src_lengths.tolist() == [5, 3]
    assert batch.num_tokens == 8
    assert batch.prev_output_tokens.tolist() == [[BOS, UNK, UNK, UNK, EOS], [BOS, UNK, EOS, PAD, PAD]]


def test_noise_is_a_function_of_seed_epoch_and_batch() -> None:
    def drafts(seed: int, epoch: int, *samples: int) -> list[list[int]]:
        made = DraftSamples(Pairs(), NOISES["random_mask"], seed).in_epoch(epoch)
        return made.collate(np.array(samples)).prev_output_tokens.tolist()

    batch = [0] * 9
    assert drafts(1, 2, *batch) == drafts(1, 2, *batch)
    assert drafts(1, 2, *batch) != drafts(1, 3, *batch)
    assert drafts(1, 2, *batch) != drafts(2, 2, *batch)
    assert drafts(1, 2, *batch) != drafts(1, 2, *batch, 1)[:9]
