"""Translations come back in order, one for each line, and their scores are those of their text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DataError
from app.evaluation import score_lines, translate_and_score
from app.inference import Rate, translate
from app.interfaces import Translation
from app.scorers import Score, Scorer


class Upper:
    """A generator that needs no model: its translation is the line in capitals. Empty lines have none."""

    def __init__(self):
        self.sizes = []

    def generate(self, lines):
        self.sizes.append(len(lines))
        return [[Translation(line.upper(), line.split(), -1.0, [-1.0], [])] if line else [] for line in lines]


class ExactMatch(Scorer):
    name = "exact"
    higher_is_better = True

    def __init__(self, cfg=None): ...

    def score(self, hypotheses, references):
        value = 100 * sum(h == r for h, r in zip(hypotheses, references)) / len(references)
        return Score(self.name, value, "", "")


def test_best_translations_are_scored_against_raw_references():
    translations, scores = translate_and_score(Upper(), ["a", "", "b"], ["A", "", "x"], {"exact": ExactMatch()})
    assert translations == ["A", "", "B"]
    assert scores[0].value == pytest.approx(200 / 3)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(DataError, match="1 translations for 2 references"):
        score_lines(["a"], ["a", "b"], {"exact": ExactMatch()})


LINES = st.lists(st.text(st.characters(exclude_characters="\n"), max_size=3), max_size=20)


@given(LINES, st.integers(1, 7))
def test_records_are_in_order_and_few_lines_are_held(lines, buffer_size):
    generator = Upper()
    records = list(translate(generator, lines, [f"ref {line}" for line in lines], buffer_size))
    assert [(r.number, r.source, r.text) for r in records] == [(i, s, s.upper()) for i, s in enumerate(lines)]
    assert [r.reference for r in records] == [f"ref {line}" for line in lines]
    assert max(generator.sizes, default=0) <= buffer_size


def test_lines_are_read_no_earlier_than_needed():
    read = []
    lines = (read.append(i) or "x" for i in range(100))
    records = translate(Upper(), lines, None, 10)
    next(records)
    assert len(read) == 10


def test_the_rate_counts_the_best_translations(caplog):
    rate = Rate()
    with caplog.at_level("INFO"):
        for record in translate(Upper(), ["a b", "", "c"], None, 2):
            rate.add(record)
        rate.report()
    assert "Translated 3 sentences (5 tokens) in" in caplog.text  # eos counted
