"""Weights & Biases without an account, without a server, and with secrets in the configuration."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb

from app.trackers.wandb import WandbConfig, WandbTracker, without_secrets
from tests.trackers.wandb_file import config, history

CONFIG = {"trainer": {"max_update": 10, "max_epoch": 0, "stop_time_hours": 0}, "task": {"api_key": "hunter2"}}


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))


def settings(**changed: object) -> WandbConfig:
    values = {"project": "test", "entity": None, "group": None, "name": None, "tags": ["a"]}
    return WandbConfig(**{**values, "mode": "online", "init_timeout": 5, "finish_timeout": 10, **changed})


def written(run_dir: Path) -> list[Path]:
    wandb.teardown()  # its service writes what is left
    return sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))


def test_an_offline_run_is_read_back_from_its_file(tmp_path):
    tracker = WandbTracker(settings(mode="offline"), tmp_path)
    tracker.start(CONFIG, 0)
    tracker.log("train", 10, {"loss": 4.5, "lr": 1e-4})
    tracker.log("valid", 10, {"bleu": 12.25})
    tracker.log("train", 20, {"loss": 4.25, "lr": 2e-4})
    tracker.finish()
    (file,) = written(tmp_path)
    first, second = history(file)
    assert (first["_step"], first["train/loss"], first["train/lr"], first["valid/bleu"]) == (10, 4.5, 1e-4, 12.25)
    assert (second["_step"], second["train/loss"]) == (20, 4.25)
    assert config(file)["trainer"]["max_update"] == 10
    assert "hunter2" not in file.read_bytes().decode("latin-1")


def test_without_an_account_it_writes_offline_and_asks_nothing(tmp_path, caplog):
    tracker = WandbTracker(settings(), tmp_path)
    tracker.start(CONFIG, 0)
    tracker.log("train", 10, {"loss": 4.5})
    tracker.finish()
    assert history(written(tmp_path)[0])[0]["train/loss"] == 4.5
    assert "no account on this machine" in caplog.text


@pytest.mark.fault("F31")
def test_a_server_that_cannot_be_reached_delays_the_start_by_seconds_only(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    tracker = WandbTracker(settings(init_timeout=3), tmp_path)
    before = time.monotonic()
    tracker.start(CONFIG, 0)
    assert time.monotonic() - before < 10
    tracker.log("train", 10, {"loss": 4.5})
    tracker.finish()
    assert history(written(tmp_path)[0])[0]["train/loss"] == 4.5
    assert "writing offline" in caplog.text


def test_a_resumed_run_goes_on_under_the_same_id(tmp_path):
    ids = set()
    for num_updates in (0, 10):
        tracker = WandbTracker(settings(mode="offline"), tmp_path)
        tracker.start(CONFIG, num_updates)
        ids.add(tracker.run.id)
        tracker.finish()
    assert len(ids) == 1


SERVICE_DIES = """
import os, signal, subprocess, sys, time
from pathlib import Path
from app.trackers.fanout import Trackers
from app.trackers.wandb import WandbTracker
from tests.trackers.test_wandb import CONFIG, settings

trackers = Trackers({"wandb": lambda run_dir: WandbTracker(settings(mode="offline"), run_dir)}, Path(sys.argv[1]))
trackers.start(CONFIG, 0)
service = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "wandb-core"], capture_output=True, text=True).stdout
os.kill(int(service), signal.SIGKILL)
for num_updates in range(10, 200, 10):
    trackers.log("train", num_updates, {"loss": 1.0})
    time.sleep(0.01)
trackers.finish()
"""


@pytest.mark.fault("F31")
def test_the_death_of_its_service_is_told_once_and_stops_nothing(tmp_path):
    ended = subprocess.run([sys.executable, "-c", SERVICE_DIES, tmp_path], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert ended.stderr.count("training goes on without it") == 1
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 19


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("api_key", "abc", "***"),
        ("hub_token", "abc", "***"),
        ("PASSWORD", "abc", "***"),
        ("client_secret", "abc", "***"),
        ("max_tokens", 4096, 4096),
        ("no_token_positional_embeddings", False, False),
        ("token", None, None),
        ("monkey", "abc", "abc"),
    ],
)
def test_secrets_are_blotted_out_at_any_depth(key, value, shown):
    assert without_secrets({"a": [{"b": {key: value}}]}) == {"a": [{"b": {key: shown}}]}
