"""Two jobs never share a run directory, and trackers never stop one."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.faults.victims import SOAK, Record, Victim, environment, kill, wait_for
from tests.runs import TINY

SHORT = ["trainer.max_update=3", "trainer.validate_interval_updates=0"]


@pytest.mark.fault("F32")
def test_the_second_job_in_a_run_directory_is_refused(tmp_path: Path) -> None:
    victim = Victim(tmp_path / "run", "trainer.max_update=100000")
    process = victim.start()
    try:
        assert wait_for(process, "parameters on")
        code, err = victim.run()
        assert code == 9
        assert f"in use by process {process.pid} on {socket.gethostname()}; stop it, or set run_dir" in err
    finally:
        kill(process)
    code, err = victim.run("term:batch@1")  # a kill leaves no lock behind
    assert code == 143, err


@pytest.mark.fault("F32")
def test_jobs_of_a_sweep_have_directories_of_their_own(tmp_path: Path, record_property: Record) -> None:
    jobs = 20 if SOAK else 2
    corpus = Victim(tmp_path / "corpus_only").corpus
    given = [f"task.data={corpus}", f"cache_dir={tmp_path / 'cache'}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    seeds = f"seed={','.join(map(str, range(jobs)))}"
    command = [sys.executable, "-m", "app.train", "-m", *TINY, *given, *SHORT, seeds]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkpoints = list((tmp_path / "sweep").glob("*/checkpoints/update_00000003"))
    assert len({path.parents[1] for path in checkpoints}) == jobs
    record_property("tries", jobs)


@pytest.fixture
def tarpit() -> str:
    """The address of a server that takes connections and never answers."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            held.append(server.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.fault("F31")
def test_a_server_that_never_answers(tarpit: str, tmp_path: Path) -> None:
    """W&B gives up after its timeout; the run is the one that has no tracker, and its own numbers are complete."""
    log = ["trainer.log_interval=1"]
    expected = Victim(tmp_path / "whole", *SHORT, *log).here()
    victim = Victim(tmp_path / "tracked", *SHORT, *log, "tracker=wandb", "tracker.wandb.init_timeout=3")
    account = {"WANDB_BASE_URL": tarpit, "WANDB_API_KEY": "0" * 40, "HOME": str(tmp_path)}
    done = subprocess.run(victim.command, env=environment(**account), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("writing offline") == 1
    lines = [json.loads(line) for line in (victim.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["num_updates"] for line in lines if line["kind"] == "train"] == [1, 2, 3]
    assert victim.here() == expected  # nothing is left to train, and the checkpoint is read back
