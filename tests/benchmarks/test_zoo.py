"""The zoo's table: every row composes, a row is trained and judged, and what fails is told by the exit code."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import zoo
from tests.runs import write_corpus

SMALL = ["tokenizer.vocab_size=40", "model.encoder_layers=1", "model.decoder_layers=1", "model.encoder_embed_dim=32"]
SMALL += ["trainer.num_threads=1", "trainer.device=cpu", "precision=fp32", "task.num_workers=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the zoo wants, of invented words: the target is the source backwards, in capitals."""
    directory = write_corpus(tmp_path_factory.mktemp("zoo") / "data", sizes=(200, 20, 1))
    for file in directory.iterdir():
        file.rename(file.with_suffix({".xx": ".en", ".yy": ".de"}[file.suffix]))
    return directory


@pytest.mark.parametrize("row", zoo.ROWS, ids=lambda row: row.name)
def test_every_row_composes(row: zoo.Row, data: Path, tmp_path: Path) -> None:
    cfg, plugins = zoo.configured(zoo.overrides_of(row, str(data), row.updates, tmp_path))
    assert cfg.checkpoint.metric == row.metric
    assert cfg.trainer.max_update == row.updates
    assert row.baseline != "copy" or "bleu" in plugins["scorer"]


def test_a_row_is_trained_and_judged(data: Path, tmp_path: Path) -> None:
    row = next(row for row in zoo.ROWS if row.name == "transformer")
    result = zoo.measure(row, str(data), 3, tmp_path, SMALL)
    assert result["updates"] == 3
    assert result["better"] == (result["after"] > result["copy"])
    assert (tmp_path / "runs" / "transformer" / "checkpoints" / "update_00000003").is_dir()


def test_the_unigram_baseline_is_the_entropy_of_the_training_words() -> None:
    """Words 4 and 5 are seen 3 and 1 times and eos 2 times, among 6 words; 4 and eos are wanted."""

    class Task:
        target_vocabulary: Any = type("Words", (), {"pad": 1, "__len__": lambda self: 6})()

        def dataset(self, split: str) -> str:
            return split

        def get_batch_iterator(self, split: str) -> list[Any]:
            import torch

            rows = {"train": [[4, 4, 2], [4, 5, 2]], "valid": [[4, 2, 1]]}[split]
            return [type("Batch", (), {"target": torch.tensor(rows)})()]

    expected = math.exp(-(math.log(4 / 12) + math.log(3 / 12)) / 2)
    assert zoo.unigram(Task(), {}) == pytest.approx(expected)


def test_a_row_that_fails_does_not_stop_the_others(data: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    given = [str(data), "--only", "lstm,transformer", "--tenth", "--out", str(tmp_path), "model.nothing=1"]
    monkeypatch.setattr("sys.argv", ["zoo", *given])
    with pytest.raises(SystemExit) as stopped:
        zoo.main()
    assert stopped.value.code == 1
    results = [json.loads(line) for line in (tmp_path / "zoo.jsonl").read_text().splitlines()]
    assert [result["row"] for result in results] == ["lstm", "transformer"]
    assert all("nothing" in result["error"] for result in results)
    assert "lstm" in capsys.readouterr().out


def test_a_worker_ends_with_the_process_that_started_it() -> None:
    worker = "import time; from benchmarks.zoo import end_with_parent; end_with_parent(); time.sleep(60)"
    parent = f"""if __name__ == '__main__':
    import multiprocessing, os
    worker = multiprocessing.get_context('spawn').Process(target=exec, args=({worker!r},))
    worker.start()
    print(worker.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    run = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=60)
    pid, deadline = int(run.stdout), time.monotonic() + 30
    while Path(f"/proc/{pid}/cmdline").is_file() and time.monotonic() < deadline:
        if not Path(f"/proc/{pid}/cmdline").read_bytes():  # ended, and nobody has asked how
            break
        time.sleep(0.1)
    else:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "ZOO_DATA"),
        (["/nowhere"], "train.en, train.de, valid.en, valid.de"),
        (["--only", "lsmt"], "no row lsmt; there are transformer,"),
    ],
)
def test_what_is_missing_is_named(given: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["zoo", *given])
    with pytest.raises(SystemExit, match=told):
        zoo.main()
