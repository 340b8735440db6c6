"""Runs to break: `app.train` as a process of its own, and the digest that says whether it came out unharmed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from app.runtime.checkpoint import Checkpoint
from tests.runs import TINY, train, write_corpus

SOAK = bool(os.environ.get("SOAK"))  # as often as docs/reliability.md says, not as often as a quick test can
VICTIM = [
    "batching.max_tokens=200",
    "model.dropout=0.2",
    "callbacks=ema",
    "trainer.max_update=60",
    "trainer.validate_interval=0",
    "trainer.validate_interval_updates=17",
    "trainer.log_interval=1000",
    "checkpoint.save_interval_updates=5",
]


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("FAULT", "RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", **extra}


class Victim:
    """A run directory, and the command that trains in it."""

    def __init__(self, directory: Path, *overrides: str):
        self.directory, self.overrides, self.run_dir = directory, [*VICTIM, *overrides], directory / "run"
        self.corpus = directory.parent / "corpus"
        if not self.corpus.is_dir():
            write_corpus(self.corpus, sizes=(60, 10, 10))
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def command(self) -> list[str]:
        cache = self.directory.parent / "cache"  # prepared once for all victims
        given = [f"task.data={self.corpus}", f"cache_dir={cache}", f"run_dir={self.run_dir}"]
        return [sys.executable, "-m", "app.train", *TINY, *given, *self.overrides]

    def start(self, fault: str = "", **options: Any) -> "subprocess.Popen[str]":
        extra = {"FAULT": fault} if fault else {}
        return subprocess.Popen(self.command, env=environment(**extra), stderr=subprocess.PIPE, text=True, **options)

    def run(self, fault: str = "", **options: Any) -> tuple[int, str]:
        """Exit code and standard error of one start."""
        process = self.start(fault, **options)
        try:
            _, err = process.communicate(timeout=300)
        finally:
            process.kill()  # nothing, where it has ended
        assert "Traceback" not in err, err
        return process.returncode, err

    def here(self) -> str:
        """The digest after training in this process."""
        with patch("app.summary.conclude"):  # curves take longer than training
            train(self.directory, *self.overrides, f"cache_dir={self.directory.parent / 'cache'}", corpus=self.corpus)
        return digest(self.run_dir)


def wait_for(process: "subprocess.Popen[str]", line: str) -> bool:
    """Read standard error until it has the text `line`. False where the process ended before."""
    assert process.stderr is not None
    return any(line in text for text in process.stderr)


def kill(process: "subprocess.Popen[str]") -> bool:
    """SIGKILL; False where the process had ended."""
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return running


def newest(run_dir: Path) -> Checkpoint:
    """The newest checkpoint, which is whole."""
    checkpoint = Checkpoint.open(max((run_dir / "checkpoints").glob("update_*")))
    checkpoint.verify()
    return checkpoint


def digest(run_dir: Path) -> str:
    """sha256 of all that the newest checkpoint holds but times, and of the run's validations."""
    checkpoint = newest(run_dir)
    state = json.loads(checkpoint.read("state.json"))
    del state["train_wall"]
    weights = {name: entry["sha256"] for name, entry in checkpoint.files.items() if name != "state.json"}
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    valid = [{k: v for k, v in line.items() if k != "time"} for line in lines if line["kind"] == "valid"]
    return hashlib.sha256(json.dumps([checkpoint.num_updates, state, weights, valid]).encode()).hexdigest()


def leftovers(run_dir: Path) -> list[str]:
    """Files that no run should leave."""
    return [path.name for path in run_dir.rglob("*") if ".tmp" in path.name or path.name.startswith("replaced-")]


Record = Callable[[str, object], None]  # pytest's record_property; "tries" is what the runner shows
