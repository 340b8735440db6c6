"""Sweeps, several tasks, preemption and dead nodes, on a real Slurm. `make slurm-test` runs these; see cluster.py."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import TINY, write_corpus
from tests.slurm.cluster import CLEAN_UP, Cluster, NoSlurmError, wait

pytestmark = pytest.mark.slurm
USER_DIRS = Path(__file__).parents[1] / "user_dirs"
SLURM = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=60", "hydra.launcher.signal_delay_s=10"]
PATIENCE = 240  # seconds for a sweep of short jobs on two busy cores


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
    except NoSlurmError as error:
        pytest.skip(f"no Slurm here: {error}")
    done = threading.Event()

    def let_requeued_jobs_start() -> None:
        while not done.wait(0.5):
            cluster.requeued_start_soon()

    loop = threading.Thread(target=let_requeued_jobs_start, daemon=True)
    loop.start()
    yield cluster
    done.set()
    loop.join()
    cluster.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's working directory, with a corpus."""
    home = tmp_path_factory.mktemp("home")
    write_corpus(home / "data", sizes=(600, 40, 40))
    return home


class Sweep:
    """`python -m app.train -m ...` on the cluster, in the background; its runs are below `outputs/NAME`."""

    def __init__(self, cluster: Cluster, home: Path, name: str, *overrides: str):
        self.directory, self.log = home / "outputs" / name, home / f"{name}.log"
        command = [sys.executable, "-m", "app.train", "-m", *SLURM, f"task.data={home / 'data'}", *overrides]
        command += [f"hydra.sweep.dir=outputs/{name}"]
        environment = {**cluster.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(USER_DIRS)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)

    def runs(self) -> dict[str, Path]:
        """By what they vary, in the order of their names."""
        paths = sorted(path for path in self.directory.glob("*") if path.is_dir() and path.name != ".submitit")
        return {path.name: path for path in paths}

    def until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait while the sweep goes on."""

        def ready_or_over() -> bool:
            return ready() or self.process.poll() is not None

        wait(ready_or_over, what, PATIENCE)
        assert ready(), self.log.read_text()[-3000:]

    def finish(self) -> dict[str, Path]:
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        assert code == 0, self.log.read_text()[-3000:]
        return self.runs()


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("update_*"))


def weights(run: Path) -> str:
    """The sha256 of a run's last weights."""
    return hashlib.sha256((newest(run) / "model.safetensors").read_bytes()).hexdigest()


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind]


def resumed(run: Path) -> int:
    """How often it has gone on from a checkpoint."""
    return (run / "train.log").read_text().count("going on from")


def trained(run: Path, updates: int) -> Callable[[], bool]:
    def reached() -> bool:
        path = run / "metrics.jsonl"
        found = re.findall(r'"num_updates": (\d+)', path.read_text()) if path.is_file() else []
        return bool(found) and int(found[-1]) >= updates

    return reached


def job_of(run: Path) -> str:
    """The Slurm job that writes a run, found by the process that holds its lock."""
    process = re.search(r"process (\d+)", (run / ".lock").read_text())
    assert process is not None
    environment = Path(f"/proc/{process[1]}/environ").read_bytes().decode().split("\0")
    values = dict(entry.split("=", 1) for entry in environment if "=" in entry)
    if "SLURM_ARRAY_JOB_ID" in values:
        return f"{values['SLURM_ARRAY_JOB_ID']}_{values['SLURM_ARRAY_TASK_ID']}"
    return values["SLURM_JOB_ID"]


def test_a_sweep_of_six_with_a_users_directory(cluster: Cluster, home: Path) -> None:
    """All six finish; the same sweep again repeats none of them."""
    chosen = [f"hydra.searchpath=[file://{USER_DIRS}/my_module/conf]", "model=my_lstm", "model.embed_dim=16"]
    chosen += [text for text in TINY if not text.startswith(("model", "optimizer.lr"))]
    asked = [*chosen, "model.hidden_size=16", "optimizer.lr=3e-4,5e-4", "seed=1,2,3", "trainer.max_update=20"]
    for _ in range(2):
        runs = Sweep(cluster, home, "six", *asked).finish()
        assert list(runs) == [f"optimizer.lr={lr},seed={seed}" for lr in (0.0003, 0.0005) for seed in (1, 2, 3)]
        assert {json.loads((run / "outcome.json").read_text())["state"] for run in runs.values()} == {"finished"}
        assert [len(lines(run, "train")) for run in runs.values()] == [4] * 6  # one line in five of 20 updates, once
    assert len({weights(run) for run in runs.values()}) == 6


@pytest.mark.fault("F26")
@pytest.mark.fault("F23")
def test_preempted_requeued_and_crashed_jobs_end_with_the_same_weights(cluster: Cluster, home: Path) -> None:
    """Of four jobs, two a node: one undisturbed, one told by USR2 to make room, two whose node dies, one of which is
    also requeued without a word."""
    asked = [*TINY, "trainer.max_update=1500", "checkpoint.save_interval_updates=50", "trainer.validate_interval=0"]
    asked += ["hydra.launcher.cpus_per_task=2", "trainer.log_interval=10,11,12,13"]  # the interval shapes nothing
    sweep = Sweep(cluster, home, "four", *asked)
    sweep.until(lambda: len(sweep.runs()) == 4, "four runs")
    undisturbed, preempted, requeued, crashed = sweep.runs().values()
    sweep.until(trained(preempted, 60), "update 60")
    cluster.call("scancel", "--signal=USR2", job_of(preempted))
    sweep.until(trained(crashed, 60), "update 60")
    node = cluster.call("squeue", "-h", "-j", job_of(crashed), "-o", "%N").strip()
    cluster.kill_node(node)
    time.sleep(CLEAN_UP)
    cluster.start_node(node)
    sweep.until(lambda: resumed(requeued) == 1, "the job to go on after its node died")
    cluster.call("scontrol", "requeue", job_of(requeued))
    runs = sweep.finish()
    assert {newest(run).name for run in runs.values()} == {"update_00001500"}
    assert [resumed(run) for run in runs.values()] == [0, 1, 2, 1]
    assert "signal SIGUSR2" in (preempted / "train.log").read_text()
    assert len({weights(run) for run in runs.values()}) == 1


def test_two_nodes_train_as_two_processes_and_as_one(cluster: Cluster, home: Path) -> None:
    """The same losses from a job of two nodes, from two processes here, and from one with `update_freq` doubled."""
    same = [*TINY, "trainer.max_update=40", "trainer.log_interval=1", "trainer.validate_interval=0"]
    nodes = ["hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=1"]
    (by_nodes,) = Sweep(cluster, home, "nodes", *same, *nodes, "distributed=ddp").finish().values()
    given = {"processes": ["distributed=ddp", "distributed.nproc_per_node=2"], "one": ["trainer.update_freq=2"]}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, overrides in given.items():
        command = [
            sys.executable,
            "-m",
            "app.train",
            *same,
            f"task.data={home / 'data'}",
            *overrides,
            f"run_dir={name}",
        ]
        subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True, timeout=PATIENCE)
    losses = [[line["loss"] for line in lines(run, "train")] for run in (by_nodes, home / "processes", home / "one")]
    assert len(losses[0]) == 40
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
