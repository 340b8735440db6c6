"""Killed anywhere, the finished run is the unbroken one; and the test would see it if it were not."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from app import trainer
from app.errors import Stopped
from app.runtime import faults
from app.runtime.checkpoint import Checkpoints
from tests.faults.victims import SOAK, Record, Victim, digest, kill, leftovers, newest, wait_for
from tests.runs import checkpoint_config


@pytest.mark.fault("F01")
def test_killed_at_random_moments(tmp_path: Path, record_property: Record) -> None:
    wanted, rng, kills, finished = 50 if SOAK else 2, random.Random(1), 0, 0
    expected = Victim(tmp_path / "whole").here()
    while kills < wanted or not finished:
        victim = Victim(tmp_path / f"broken-{finished}")
        while kills < wanted:
            process = victim.start()
            wait_for(process, "parameters on")
            time.sleep(rng.uniform(0.05, 1.5))
            if not kill(process):
                break
            kills += 1
        code, err = victim.run()
        assert code == 0, err
        assert digest(victim.run_dir) == expected
        assert leftovers(victim.run_dir) == []
        finished += 1
    record_property("tries", kills)


@pytest.mark.fault("F02")
def test_killed_inside_accumulation_and_inside_validation(tmp_path: Path, record_property: Record) -> None:
    """With processes that make batches: what they had in hand is made again."""
    settings = ["trainer.update_freq=2", "batching.num_workers=2", "trainer.max_update=12"]
    settings += ["trainer.validate_interval_updates=4", "task.max_source_positions=16", "task.max_target_positions=16"]
    settings += ["batching.max_tokens_valid=16"]  # several batches
    expected = Victim(tmp_path / "whole", *settings).here()
    victim = Victim(tmp_path / "broken", *settings)
    points = ["batch@12", "validate@2", "batch@4", "validate@9"] if SOAK else ["batch@12", "validate@2"]
    for point in points:
        code, err = victim.run(f"kill:{point}")
        assert code == -signal.SIGKILL, err
    assert victim.run()[0] == 0
    assert digest(victim.run_dir) == expected
    lines = [json.loads(line) for line in (victim.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["num_updates"] for line in lines if line["kind"] == "valid"] == [4, 8, 12]
    record_property("tries", len(points))


NEEDS_NOTHING = {  # pieces of state that this run may forget, and why
    "metric",  # says what `best` is of
    "validated_at",  # tells a validation from one made again at the same update, and this run is not saved at one twice
    "criterion",  # has no parameters
    "callbacks",  # EMA's average stands apart, as "averaged"
    "train_wall",  # time, which no two runs share
}


def forget(run_dir: Path, piece: str, fresh: dict[str, Any]) -> None:
    """Make the newest checkpoint hold `piece` as a run has it after its first update."""
    checkpoint = newest(run_dir)
    state, model = checkpoint.state(), checkpoint.tensors("model.safetensors")
    averaged = checkpoint.tensors("averaged.safetensors")
    if piece == "weights":
        model = fresh["weights"]
    elif piece == "averaged":
        averaged = model
    elif piece in ("optimizer", "scaler"):
        state["optimizer"][piece] = fresh["optimizer"][piece]
    else:
        state[piece] = fresh[piece]
    Checkpoints(checkpoint_config(), run_dir).save(checkpoint.num_updates, model, averaged, state, checkpoint.metrics)


@pytest.mark.fault("F03")
def test_a_resume_that_forgets_anything_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    settings = ["lr_scheduler=reduce_lr_on_plateau", "lr_scheduler.lr_patience=0", "lr_scheduler.lr_shrink=0.5"]
    settings += ["precision=fp16", "precision.init_scale=64", "precision.growth_interval=4"]
    settings += ["trainer.validate_interval_updates=3", "trainer.max_update=28", "optimizer.lr=0.1"]

    def stopped(name: str, update: int) -> Victim:
        monkeypatch.setenv("FAULT", f"term:update@{update}")
        faults.asked.cache_clear()
        victim = Victim(tmp_path / name, *settings)
        with pytest.raises(Stopped):
            victim.here()
        monkeypatch.delenv("FAULT")
        faults.asked.cache_clear()
        return victim

    start = newest(stopped("start", 1).run_dir)
    fresh = start.state() | {"weights": start.tensors("model.safetensors")}
    expected = Victim(tmp_path / "whole", *settings).here()
    half = stopped("half", 25)  # inside an epoch, after a validation without gain, behind which none has one
    assert newest(half.run_dir).state()["num_validations_without_gain"], "stop at another update"
    pieces = [piece for piece in newest(half.run_dir).state() if piece not in NEEDS_NOTHING]
    pieces += ["scaler", "weights", "averaged"]
    unseen = []
    for piece in ["nothing", "seeds", *pieces]:
        copy = Victim(tmp_path / f"without-{piece}", *settings)
        shutil.copytree(half.run_dir, copy.run_dir)
        with monkeypatch.context() as patch:
            if piece == "seeds":
                patch.setattr(trainer, "set_seed", lambda *place: torch.manual_seed(0))
            elif piece != "nothing":
                forget(copy.run_dir, piece, fresh)
            try:
                if copy.here() == expected:
                    unseen.append(piece)
            except KeyError:  # the schedule looks for a loss in `valid_metrics`
                continue
    assert unseen == ["nothing"]
    record_property("tries", len(pieces) + 1)


@pytest.mark.fault("F02")
def test_a_run_that_is_gone_on_with_keeps_its_vocabularies_as_they_are(tmp_path: Path) -> None:
    """They are not written again, so that no kill can leave a half of them."""
    settings = ["trainer.max_update=3", "trainer.validate_interval_updates=0"]
    victim = Victim(tmp_path / "run", *settings)
    victim.here()
    paths = [path for path in (victim.run_dir / "task").rglob("*") if path.is_file()]
    before = [path.stat().st_ino for path in paths], [path.stat().st_mtime_ns for path in paths]
    victim.overrides += ["trainer.max_update=4"]
    victim.here()
    assert newest(victim.run_dir).num_updates == 4
    assert len(paths) > 1
    assert ([path.stat().st_ino for path in paths], [path.stat().st_mtime_ns for path in paths]) == before


POINTS = [f"{place}@{number}" for place in ("opened", "half", "written") for number in range(5, 9)]
POINTS += ["renamed@2", "removed@1"]


def save_twice(run_dir: Path, fault: str) -> None:
    """The second time with the fault."""
    os.environ["FAULT"] = fault
    faults.times.clear()  # of the process that this one is a copy of
    faults.asked.cache_clear()
    checkpoints = Checkpoints(checkpoint_config(keep_last=1, keep_best=0), run_dir)
    for update in (1, 2):
        checkpoints.save(update, {"weight": torch.full((1000,), float(update))}, None, {"num_updates": update}, {})


@pytest.mark.fault("F04")
@pytest.mark.parametrize("point", POINTS)
def test_killed_in_the_middle_of_a_checkpoint(point: str, tmp_path: Path) -> None:
    """4 files are written for each of two checkpoints; the first is there whatever happens to the second."""
    process = multiprocessing.get_context("fork").Process(
        target=save_twice, args=(tmp_path, f"kill:checkpoint.{point}")
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    checkpoints = Checkpoints(checkpoint_config(keep_last=1, keep_best=0), tmp_path)
    found = checkpoints.newest()
    assert found is not None
    assert found.num_updates == (2 if point in ("renamed@2", "removed@1") else 1)
    checkpoints.save(3, {"weight": torch.zeros(1000)}, None, {"num_updates": 3}, {})
    assert [path.name for path in checkpoints.directory.iterdir()] == ["update_00000003"]


@pytest.mark.fault("F04")
@pytest.mark.parametrize("name", ["all", "newest"])
def test_killed_between_the_old_and_the_new_of_one_update(name: str, tmp_path: Path) -> None:
    """The last save of a run may replace one of the same update; the old one is then the only one there is."""
    checkpoints = Checkpoints(checkpoint_config(keep_last=1, keep_best=0), tmp_path)
    checkpoints.save(2, {"weight": torch.ones(1000)}, None, {"num_updates": 2}, {})
    process = multiprocessing.get_context("fork").Process(
        target=save_twice, args=(tmp_path, "kill:checkpoint.replaced@1")
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (checkpoints.directory / "update_00000002").exists()
    found = checkpoints.newest() if name == "newest" else checkpoints.all()[-1]
    assert found is not None
    assert found.num_updates == 2
    found.verify()
    checkpoints.save(3, {"weight": torch.zeros(1000)}, None, {"num_updates": 3}, {})
    assert [path.name for path in checkpoints.directory.iterdir()] == ["update_00000003"]


@pytest.mark.fault("F34")
def test_nothing_leaks_and_equal_runs_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    updates, seen = 5000 if SOAK else 240, []
    after_update = trainer.Trainer.after_update

    def measured(self: Any, losses: Any) -> None:
        after_update(self, losses)
        if self.num_updates in (updates // 2, updates - 1):
            self.saver.wait()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            handles, threads = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
            seen.append((handles, threads, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

    monkeypatch.setattr(trainer.Trainer, "after_update", measured)
    settings = [f"trainer.max_update={updates}", "trainer.validate_interval_updates=60"]
    settings += ["checkpoint.save_interval_updates=20"]
    one, two = (Victim(tmp_path / name, *settings).here() for name in ("one", "two"))
    assert one == two
    (handles, threads, memory), (handles_later, threads_later, memory_later) = seen[:2]
    assert handles_later <= handles
    assert threads_later <= threads
    assert memory_later - memory < 30  # MiB
    record_property("tries", 2)


@pytest.mark.fault("F01")
def test_another_seed_has_another_digest(tmp_path: Path) -> None:
    """The control of all comparisons here."""
    short = ["trainer.max_update=3"]
    assert Victim(tmp_path / "one", *short).here() != Victim(tmp_path / "two", *short, "seed=2").here()
