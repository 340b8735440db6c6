"""The order of an epoch of a large data set: every sample as often as its weight says, from all over."""

from collections import Counter

import numpy as np
import pytest

from app.data.windows import Span, Windows, permuted


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def epoch(windows: Windows) -> list[int]:
    return [sample for number in range(len(windows)) for sample in windows[number].tolist()]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_every_number_has_a_place_of_its_own(count: int) -> None:
    keys = rng(count).integers(1 << 63, size=4, dtype=np.uint64)
    places = permuted(np.arange(count), count, keys)
    assert sorted(places.tolist()) == list(range(count))
    assert permuted(np.array([count - 1, 0]), count, keys).tolist() == [places[-1], places[0]]


def test_places_do_not_follow_the_numbers() -> None:
    """Neighbours are as far apart as chance has it: a third of the range on the average; no number stays more often."""
    places = permuted(np.arange(100_000), 100_000, rng(1).integers(1 << 63, size=4, dtype=np.uint64))
    assert np.abs(np.diff(places)).mean() == pytest.approx(100_000 / 3, rel=0.02)
    assert np.corrcoef(np.arange(100_000), places)[0, 1] == pytest.approx(0, abs=0.01)
    assert np.count_nonzero(places == np.arange(100_000)) < 8


def test_an_epoch_has_every_sample_once_in_windows_of_like_size() -> None:
    windows = Windows([Span(0, 700, 1.0), Span(700, 303, 1.0)], 100, rng(1, 1))
    assert sorted(epoch(windows)) == list(range(1003))
    assert {len(windows[number]) for number in range(len(windows))} <= {91, 92}
    assert all(np.ptp(windows[number]) > 800 for number in range(len(windows)))  # each from all over


def test_epochs_differ_and_repeat_themselves() -> None:
    one, again, two = (epoch(Windows([Span(0, 1000, 1.0)], 100, rng(1, number))) for number in (1, 1, 2))
    assert one == again != two


def test_without_a_generator_samples_keep_their_order() -> None:
    assert epoch(Windows([Span(0, 60, 1.0), Span(60, 5, 1.0)], 10, None)) == list(range(65))


def test_weights_are_seen_by_whole_passes_and_a_random_rest() -> None:
    spans = [Span(0, 400, 2.5), Span(400, 1000, 0.25), Span(1400, 3, 0.0)]
    first, second = (Counter(epoch(Windows(spans, 100, rng(1, number)))) for number in (1, 2))
    for seen in (first, second):
        assert {seen[sample] for sample in range(400)} == {2, 3}
        assert {seen[sample] for sample in range(400, 1403)} == {0, 1}
        assert sum(seen[sample] for sample in range(400)) in (1000, 1001)
        assert sum(seen[sample] for sample in range(400, 1400)) in (250, 251)
    assert first != second


def test_blocks_are_read_together() -> None:
    """With a window of 2,048 the samples come in pairs of neighbours."""
    window = Windows([Span(0, 100_000, 1.0)], 2048, rng(1))[0]
    assert (window.reshape(-1, 2) @ [-1, 1] == 1).all()
    assert (window[::2] % 2 == 0).all()


def test_a_span_that_is_hardly_ever_seen_leaves_an_epoch_empty() -> None:
    windows = Windows([Span(0, 10, 1e-9)], 100, rng(1))
    assert (len(windows), windows[0].tolist()) == (1, [])
