"""What a person types first, and how programs end."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app import cli, errors
from app.cli import Job, command, told

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)


def test_help_is_quick_and_loads_no_torch(tmp_path: Path) -> None:
    started = time.perf_counter()
    done = run("-X", "importtime", "-m", "app.train", "--help", cwd=tmp_path)
    seconds = time.perf_counter() - started
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"torch", "wandb", "numpy", "sentencepiece", "sacrebleu", "matplotlib"}
    for word in ("python -m app.train task.data=DIR", " transformer, ", "max_update: "):
        assert word in done.stdout
    assert seconds < 5  # 1.5 on an idle machine; tests share theirs
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cfg", "job"], "label_smoothing: 0.1"),
        (["--cfg", "job", "--resolve", "task.data=x"], "run_dir: outputs/translation-transformer-"),
        (["--info", "defaults"], "model/transformer"),
        (["--hydra-help"], "--shell-completion"),
        (["-sc", "install=bash"], "complete"),
    ],
)
def test_hydras_own_flags_keep_working(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run("-m", "app.train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shown", [["--cfg", "job"], ["--info", "defaults"], ["--help"]])
def test_they_explain_a_wrong_override_too(shown: list[str], tmp_path: Path) -> None:
    done = run("-m", "app.train", *shown, "model=transfomer", cwd=tmp_path)
    assert done.returncode == 2
    assert "the nearest is transformer" in done.stderr


ERRORS = [
    (errors.ConfigError(["a: b"]), 2),
    (errors.DataError("x"), 3),
    (errors.CheckpointError("x"), 4),
    (errors.StorageError("x"), 5),
    (errors.NumericsError("x"), 6),
    (errors.WorkerError("x"), 7),
    (errors.LockedError("x"), 9),
    (errors.Stopped("x", 2), 130),
    (errors.Stopped("x", 15), 143),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_an_error_that_can_be_mended_has_an_exit_code(error: errors.UserError, code: int) -> None:
    with pytest.raises(SystemExit) as stopped, told("train"):
        raise error
    assert stopped.value.code == code


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_it_survives_the_way_back_from_a_launcher(error: errors.UserError, code: int) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.exit_code) == (type(error), str(error), code)


def test_an_interrupt_is_130_and_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(SystemExit) as stopped, told("train"):
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    with pytest.raises(ZeroDivisionError), told("train"):
        raise ZeroDivisionError


def test_a_job_can_be_sent_to_another_machine() -> None:
    job = Job("score", print)
    assert pickle.loads(pickle.dumps(job)) == job


def score(monkeypatch: pytest.MonkeyPatch, function: Any, *arguments: str) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(cli, "log_to_stderr", lambda: None)
    monkeypatch.setattr(sys, "argv", ["score", *arguments])
    command("score", function)()


def test_a_command_gets_plain_values_and_waiting_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lines").touch()
    monkeypatch.chdir(tmp_path)
    got: list[Any] = []
    score(monkeypatch, lambda *given: got.extend(given), "sys=lines", "ref=lines", "scorer=[bleu,ter]")
    cfg, plugins = got
    assert type(cfg).__name__ == "ScoreConfig"
    assert type(cfg.scorer) is dict
    assert list(plugins["scorer"]) == ["bleu", "ter"]
    assert plugins["scorer"]["ter"]().name == "ter"
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


def test_a_sweep_goes_on_after_a_job_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines").touch()
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []

    def fail_at_first(cfg: Any, plugins: Any) -> float:
        seen.append(cfg.output)
        if len(seen) == 1:
            raise errors.DataError("lines: empty")
        return 1.0

    with pytest.raises(SystemExit) as stopped:
        score(monkeypatch, fail_at_first, "-m", "sys=lines", "ref=lines", "output=text,json")
    assert stopped.value.code == 3
    assert seen == ["text", "json"]
    assert "app.score: lines: empty" in capsys.readouterr().err
