"""The three ways to write a translation, read back."""

import json
import math

import pytest

from app.formats import Record, as_fairseq, as_jsonl, as_text
from app.interfaces import Translation

SCORES = [-0.25, -0.5, -0.5, -0.75]
BEST = Translation("Ein Hund.", ["▁Ein", "▁Hund", "."], -0.5, SCORES, ["▁A", "▁dog", "."], [0, 1, 2])
SECOND = Translation("Hund.", ["▁Hund", "."], -2.0, [-1.0, -2.0, -3.0], ["▁A", "▁dog", "."])
RECORD = Record(7, "A dog.", [BEST, SECOND], reference="Ein Hund!")


def test_text_is_the_best_translation_on_one_line():
    assert as_text(RECORD) == "Ein Hund.\n"
    assert as_text(RECORD._replace(translations=[])) == "\n"
    assert as_text(Record(0, "x", [BEST._replace(text="a\nb")])) == "a b\n"


def test_fairseq_lines_have_base_2_scores():
    lines = [line.split("\t") for line in as_fairseq(RECORD).splitlines()]
    assert [line[0] for line in lines] == ["S-7", "T-7", "H-7", "D-7", "P-7", "A-7", "H-7", "D-7", "P-7"]
    by_letter = {line[0][0]: line[1:] for line in reversed(lines)}
    assert by_letter["S"] == ["▁A ▁dog ."]
    assert by_letter["T"] == ["Ein Hund!"]
    assert float(by_letter["H"][0]) == pytest.approx(-0.5 / math.log(2))
    assert by_letter["H"][1] == "▁Ein ▁Hund ."
    assert by_letter["D"][1] == "Ein Hund."
    assert by_letter["P"] == ["-0.3607 -0.7213 -0.7213 -1.0820"]
    assert by_letter["A"] == ["0-0 1-1 2-2"]


def test_fairseq_lines_of_an_empty_or_timed_line():
    assert as_fairseq(Record(0, "", [])) == "S-0\t\n"
    assert "W-0\t0.500\tseconds\n" in as_fairseq(Record(0, "A dog.", [BEST], seconds=0.5))


def test_fairseq_lines_of_steps():
    lines = as_fairseq(Record(2, "A dog.", [BEST._replace(history=["Ein", "Ein Hund."])])).splitlines()
    assert lines[-3:] == ["I-2\t1", "E-2_0\tEin", "E-2_1\tEin Hund."]


def test_jsonl_has_everything_in_one_line():
    (line,) = as_jsonl(RECORD).splitlines()
    record = json.loads(line)
    assert record["id"] == 7
    assert record["source"] == "A dog."
    assert record["reference"] == "Ein Hund!"
    assert [t["text"] for t in record["translations"]] == ["Ein Hund.", "Hund."]
    assert record["translations"][0]["score"] == -0.5
    assert record["translations"][0]["alignment"] == [0, 1, 2]
    assert "alignment" not in record["translations"][1]
