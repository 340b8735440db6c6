"""The curves of the fast paths: rows are trained and compared, and a row that is done is not trained again."""

from pathlib import Path

import pytest

from benchmarks import curves
from benchmarks.reference import PATCHES
from tests.runs import configured, write_corpus

SMALL = ["model=transformer_tiny", "tokenizer=word", "trainer.num_threads=1", "trainer.device=cpu"]


@pytest.fixture
def shared(tmp_path: Path) -> list[str]:
    data = write_corpus(tmp_path / "data", sizes=(100, 10, 1))
    languages = ["task.source_lang=xx", "task.target_lang=yy"]
    settings = [each for each in curves.SETTINGS if not each.startswith(("model", "tokenizer"))]
    return [f"task.data={data}", f"cache_dir={tmp_path / 'cache'}", *settings, *SMALL, *languages]


def test_every_row_composes_and_lacks_what_it_says(shared: list[str]) -> None:
    rows = list(curves.all_rows())
    assert [row.name for row in rows if row.lacks == frozenset(PATCHES)] == ["plain", "plain, seed 2"]
    for row in rows:
        cfg, plugins = configured([*curves.SETTINGS, shared[0], *shared[-2:], "run_dir=run", *row.overrides])
        assert cfg.seed == (2 if row.name.endswith("seed 2") else 1)
        assert plugins["optimizer"].func.__module__.startswith("torch" if row.lacks == set(PATCHES) else "app")


def test_rows_are_trained_once_and_compared_with_the_first(
    shared: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in curves.all_rows() if row.name in ("plain", "fp32")]
    first = curves.compared(rows, 6, tmp_path / "runs", shared)
    assert [result["row"] for result in first] == ["plain", "fp32"]
    assert [list(result["loss"]) for result in first] == [[1, 2, 3, 4, 5, 6]] * 2
    assert first[0]["times plain"] == 1
    assert 0.9 < first[1]["times plain"] < 1.1
    assert first[0]["loss"] != first[1]["loss"]  # another dropout
    assert "away from plain" in " ".join(curves.shown(first).rows[0])
    monkeypatch.setattr(curves, "work", None)
    assert curves.compared(rows, 6, tmp_path / "runs", shared) == first
