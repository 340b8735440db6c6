"""The tutorials are true: their files are written as they stand there, and their commands are run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUICK = ["trainer.num_threads=1", "trainer.device=cpu", "batching.prefetch=0"]


def unpack(page: str, home: Path) -> list[list[str]]:
    """Write the page's files below `home`; returns its commands in order."""
    text = (TUTORIALS / page).read_text()
    for name, content in FILE.findall(text):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (home / "tutorial" / "__init__.py").touch()
    lines = [line for language, block in FENCE.findall(text) if not language for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("python ")]


def run(home: Path, arguments: list[str], *more: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments, *more]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_simple_lstm(tmp_path: Path) -> None:
    corpus, train, describe, generate, sweep = unpack("simple_lstm.md", tmp_path)
    run(tmp_path, corpus)
    for split in ("train", "valid", "test"):  # shorter than on the page
        for path in (tmp_path / "demo").glob(f"{split}.*"):
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:60]))
    run(tmp_path, train, *QUICK, "trainer.max_update=4")
    assert "  hidden_dim = 128   (a whole number)\n      width of the states" in run(tmp_path, describe)
    assert "bleu" in run(tmp_path, generate, "num_threads=1", "device=cpu").lower()
    assert len((tmp_path / "outputs" / "simple_lstm" / "test.de").read_text().splitlines()) == 60
    run(tmp_path, sweep, *QUICK, "trainer.max_update=1", "trainer.decode_valid=false")
    assert len(list((tmp_path / "outputs" / "sweeps").glob("*/*/metrics.jsonl"))) == 2


def test_classifying_names(tmp_path: Path) -> None:
    names, train, evaluate = unpack("classifying_names.md", tmp_path)
    run(tmp_path, names)
    run(tmp_path, train, *QUICK)
    measured = json.loads(run(tmp_path, evaluate, "num_threads=1", "device=cpu"))
    assert measured["accuracy"] > 95


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.stem)
def test_every_page_is_run_here(page: Path) -> None:
    assert f"def test_{page.stem}(" in Path(__file__).read_text()
