"""Runs of two processes: they make the updates of one, end together, and say why."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from app.compose import CONF
from app.errors import RankError, Stopped, UserError
from app.runtime.checkpoint import Checkpoint
from app.runtime.launch import end_of, first_code
from tests.runs import TINY, train

TWO = ["distributed=ddp", "distributed.nproc_per_node=2"]
BATCHES = ["batching.max_tokens=200", "trainer.validate_interval_updates=3", "trainer.log_interval=1"]


def newest(run_dir: Path) -> Checkpoint:
    return Checkpoint.open(sorted((run_dir / "checkpoints").glob("update_*"))[-1])


def lines(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


def same_weights(one: Path, other: Path) -> bool:
    weights = [newest(run_dir).tensors("model.safetensors") for run_dir in (one, other)]
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def code_of(directory: Path, *overrides: str, corpus: Path | None = None) -> int:
    """The exit code of a run that does not end well."""
    with pytest.raises(UserError) as ended:
        train(directory, *TWO, *BATCHES, *overrides, corpus=corpus)
    return ended.value.exit_code


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of one process, with two batches an update; an epoch has an odd number of batches."""
    directory = tmp_path_factory.mktemp("alone")
    run_dir = train(directory, *BATCHES, "trainer.update_freq=2", "trainer.max_update=14")
    assert [line["epoch"] for line in lines(run_dir, "train")].count(2) == 6
    return run_dir


@pytest.mark.fault("F22")
def test_two_processes_then_one_then_two_are_one(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGUSR2 to one of two ends both with a checkpoint, and then has the job of their launcher queued again; every leg
    takes the batches that one process takes."""
    corpus, queued = alone.parent / "corpus", []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: queued.append(newest(tmp_path / "run").num_updates))
    with monkeypatch.context() as patch:
        patch.setenv("FAULT", "usr2:update@3#1")
        assert code_of(tmp_path, "trainer.max_update=14", corpus=corpus) == 140
    signal.signal(signal.SIGUSR2, before)
    assert queued == [newest(tmp_path / "run").num_updates]
    assert newest(tmp_path / "run").num_updates in (3, 4)
    train(tmp_path, *BATCHES, "trainer.update_freq=2", "trainer.max_update=8", corpus=corpus)
    run_dir = train(tmp_path, *TWO, *BATCHES, "trainer.max_update=14", corpus=corpus)
    assert same_weights(run_dir, alone)
    for kind in ("train", "valid"):
        legs, straight = ({line["num_updates"]: line["loss"] for line in lines(run, kind)} for run in (run_dir, alone))
        assert {update: legs[update] for update in straight} == pytest.approx(straight, rel=1e-6)


def test_torchrun_starts_the_same_run(alone: Path, tmp_path: Path) -> None:
    given = [f"task.data={alone.parent / 'corpus'}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    overrides = [*TINY, *given, *BATCHES, "distributed=ddp", "trainer.max_update=14"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "app.train", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=CONF.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stopped after 14 updates") == 1  # the second process says nothing
    assert same_weights(tmp_path / "run", alone)


def test_the_reason_is_that_of_the_rank_that_failed_first() -> None:
    assert first_code([3, 8], 8) == 3  # rank 1 noticed, and was gone before rank 0
    assert first_code([8, -9], 8) == 8
    assert first_code([8, 6], 6) == 6
    assert isinstance(end_of(143), Stopped)
    assert (end_of(143).exit_code, end_of(3).exit_code) == (143, 3)


@pytest.mark.fault("F19")
def test_a_rank_that_dies_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "kill:update@2#1")
    with pytest.raises(RankError, match=r"rank 1 \(process \d+\) was ended by SIGKILL"):
        train(tmp_path, *TWO, *BATCHES, "trainer.max_update=14")


@pytest.mark.fault("F20")
def test_a_rank_that_freezes_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT", "stop:update@2#1")
    assert code_of(tmp_path, "distributed.min_timeout=2", "distributed.timeout_factor=0.1") == 8
    told = capfd.readouterr().err
    assert "rank 0: another rank did not answer in time" in told
    assert "most recent call first" in told  # where it waited


@pytest.mark.fault("F21")
def test_a_rank_with_other_weights_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT", "differ:update@2#1")
    assert code_of(tmp_path, "distributed.check_interval=2") == 8
    assert "update 2: 1 weights are not the same on all ranks" in capfd.readouterr().err


@pytest.mark.fault("F16")
@pytest.mark.fault("F14")
def test_a_batch_too_large_for_one_rank_is_halved_and_bad_numbers_of_one_end_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT", "oom:forward@3#1,nan:loss@4#1,nan:grad@5#1,inf:loss@6#1")
    checks = ["distributed.check_interval=1", "trainer.max_nonfinite_updates=3", "trainer.update_freq=2"]
    assert code_of(tmp_path, *checks, "trainer.max_update=14") == 6
    told = capfd.readouterr().err
    assert "rank 1: a batch of" in told
    assert "not finite 3 times in a row" in told
    skipped = json.loads((tmp_path / "run" / "skipped_batches.json").read_text())
    assert skipped["num_updates"] == 3
    assert [len(set(samples)) == len(samples) > 40 for samples in skipped["samples"]] == [True, True, True]


def test_a_model_in_parts_learns_what_a_whole_one_does(alone: Path, tmp_path: Path) -> None:
    """FSDP's checkpoints are the ordinary ones: a run in parts goes on as a whole one, and a whole one in parts."""
    corpus, parts = alone.parent / "corpus", ["distributed=fsdp", "distributed.nproc_per_node=2"]
    train(tmp_path, *BATCHES, "trainer.update_freq=2", "trainer.max_update=2", "callbacks=ema", corpus=corpus)
    train(tmp_path, *BATCHES, *parts, "trainer.max_update=5", "callbacks=ema", corpus=corpus)
    run_dir = train(
        tmp_path, *BATCHES, "trainer.update_freq=2", "trainer.max_update=14", "callbacks=ema", corpus=corpus
    )
    whole, split = (newest(path).tensors("model.safetensors") for path in (alone, run_dir))
    assert whole.keys() == split.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(split[name], weight, rtol=1e-3, atol=1e-4)


def test_a_model_in_parts_computes_in_bf16_and_keeps_its_weights_in_fp32(alone: Path, tmp_path: Path) -> None:
    given = ["distributed=fsdp", "distributed.nproc_per_node=2", "precision=bf16", "trainer.max_update=3"]
    run_dir = train(tmp_path, *BATCHES, *given, corpus=alone.parent / "corpus")
    losses, exact = ([line["loss"] for line in lines(run, "train")[:3]] for run in (run_dir, alone))
    assert losses == pytest.approx(exact, rel=1e-2)
    assert losses != pytest.approx(exact, rel=1e-6)
    weights = newest(run_dir).tensors("model.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.float32}
    assert any((weight != weight.bfloat16()).any() for weight in weights)
