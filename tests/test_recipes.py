"""Every recipe trains from raw text by one command, and `debug=short` shows in seconds that it does."""

import random
from pathlib import Path

import pytest

from app.compose import CONF
from app.trackers.jsonl import read_metrics
from tests.runs import configured

RECIPES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
LINES = {"train": 120, "valid": 4, "test": 4}
FEW = ["trainer.device=cpu", "trainer.num_threads=1"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all recipes read: parallel text with alignments, and sentences with labels, in one directory each."""
    home = tmp_path_factory.mktemp("text")
    draw = random.Random(1)
    words = [a + b for a in "bdgklm" for b in "aeiou"]
    for split, count in LINES.items():
        lines = [draw.choices(words, k=draw.randint(2, 9)) for _ in range(count)]
        write(home / "pairs" / f"{split}.en", [" ".join(line) for line in lines])
        write(home / "pairs" / f"{split}.de", [" ".join(line[::-1]).upper() for line in lines])
        aligned = [" ".join(f"{i}-{len(line) - 1 - i}" for i in range(len(line))) for line in lines]
        write(home / "pairs" / f"{split}.en-de.align", aligned)
        labels = [str(len(line) % 2) for line in lines]
        write(home / "classes" / f"{split}.input0", [" ".join(line) for line in lines])
        write(home / "classes" / f"{split}.label", labels)
        write(home / "ranked" / f"{split}.input1", [" ".join(line) for line in lines])
        write(home / "ranked" / f"{split}.input2", [" ".join(sorted(line)) for line in lines])
        write(home / "ranked" / f"{split}.label", labels)
    return home


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def data_of(recipe: str, text: Path) -> Path:
    places = {"sentence_prediction_small": "classes", "sentence_ranking_small": "ranked"}
    return text / places.get(recipe, "pairs")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs(recipe: str, text: Path, tmp_path: Path) -> None:
    from app.train import run

    places = [f"task.data={data_of(recipe, text)}", f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]
    pieces = [] if recipe in ("align_small", "demo") else ["tokenizer.vocab_size=60"]  # as many as these words have
    run(*configured([f"experiment={recipe}", "debug=short", *FEW, *pieces, *places]))
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["num_updates"] for line in metrics if line["kind"] == "train"] == [1, 2, 3, 4, 5]
    valid = [line for line in metrics if line["kind"] == "valid"]
    assert valid[-1]["num_updates"] == 5
    assert 0 < valid[-1]["loss"] < 20
    assert list((tmp_path / "run" / "checkpoints").glob("update_00000005"))
