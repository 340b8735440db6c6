"""A run's configuration in its directory: written, read back, and compared with a later command's. No torch here."""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from app.config import TrainConfig
from app.errors import CheckpointError, ConfigError, StorageError
from app.old_runs import complete

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
SHAPING = ["task", "model", "criterion", "optimizer", "lr_scheduler", "tokenizer"]
SHAPING += ["precision", "callbacks", "batching", "seed"]
SHAPING_OF_TRAINER = ["update_freq", "clip_norm", "train_split"]
NOT_SHAPING = {"task.num_workers", "task.on_bad_line", "batching.max_tokens_valid"}
NOT_SHAPING |= {f"batching.{name}" for name in ("prefetch", "num_workers", "worker_timeout")}


def check_same_run(cfg: TrainConfig, run_dir: Path) -> None:
    """Raise ConfigError where the checkpoints of `run_dir` must not be gone on with, or not with these settings."""
    if not cfg.checkpoint.resume:
        fault = f"checkpoint.resume=false: the checkpoints of {run_dir} would be overwritten; give another run_dir"
        raise ConfigError([fault])
    before = stored_run(run_dir)
    may_differ = tuple(f"{key}." for key in cfg.checkpoint.may_differ)
    refused = [line for key, line in shaping_changes(before, cfg).items() if not f"{key}.".startswith(may_differ)]
    if refused:
        mend = "give another run_dir, the old settings, or name what may change in checkpoint.may_differ"
        raise ConfigError([f"run_dir={run_dir}: holds a run with other settings; {mend}", *refused])
    for line in differences(comparable(before), comparable(values_of(cfg))).values():
        logger.info("changed since the last start: %s", line)


def shaping_changes(before: Mapping[str, Any], cfg: TrainConfig) -> dict[str, str]:
    """The settings that shape the result and are not as they were, each with a line that says so."""
    now = values_of(cfg)
    shapes = shaping(before).keys() | shaping(now).keys()
    changes = differences(comparable(before), comparable(now))
    return {key: line for key, line in changes.items() if key in shapes}


def comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat values; of an update it is said how many batches it has, not how processes share them."""
    plain = flat(dict(values))
    world_size = plain.pop("distributed.world_size", None) or 1
    if "trainer.update_freq" in plain:
        plain["trainer.update_freq"] = f"{plain['trainer.update_freq'] * world_size} of all processes together"
    return plain


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The dotted keys whose values are not the same, each with a line that says so."""
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return {key: f"{key}: {before.get(key)} there, {now.get(key)} now" for key in keys}


def shaping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's values, those that its result depends on, under dotted keys."""
    groups = flat({key: values.get(key) for key in SHAPING})
    trainer = {f"trainer.{key}": values.get("trainer", {}).get(key) for key in SHAPING_OF_TRAINER}
    return {key: value for key, value in (groups | trainer).items() if key not in NOT_SHAPING}


def save_config(cfg: TrainConfig, run_dir: Path) -> None:
    """Write the resolved configuration, whole or not at all. Raises StorageError."""
    path = run_dir / CONFIG
    temporary = path.with_suffix(".tmp")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(OmegaConf.to_yaml(OmegaConf.create(values_of(cfg))))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; free space there or set run_dir elsewhere") from None


def values_of(cfg: TrainConfig) -> dict[str, Any]:
    """Plain values, in which the data are found from any working directory."""
    return asdict(cfg) | {"task": {**cfg.task, "data": absolute(cfg.task.get("data"))}}


def absolute(data: Any) -> Any:
    """A task's directory, list of directories or of {path, weight}, with absolute paths."""
    if isinstance(data, list):
        return [absolute(each) for each in data]
    if isinstance(data, dict):
        return {**data, "path": absolute(data.get("path"))}
    return str(Path(data).resolve()) if isinstance(data, str) else data


def stored(path: Path) -> dict[str, Any]:
    """The plain values of a stored configuration. Nothing in it is resolved or run."""
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # whatever a YAML parser says of a damaged file
        raise CheckpointError(f"{path}: not a readable configuration ({type(error).__name__})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a configuration of a run")
    return {str(key): value for key, value in values.items()}


def stored_run(run_dir: Path) -> dict[str, Any]:
    """The plain values of a run's configuration. Those of settings that are newer than the run are added, and told."""
    values = stored(run_dir / CONFIG)
    if added := complete(values):
        told = ", ".join(f"{key}={value}" for key, value in added.items())
        logger.info("%s: from before these settings, which are taken to be %s", run_dir / CONFIG, told)
    return values


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys."""
    if not isinstance(values, dict):
        return {key: values}
    return {k: v for name, child in values.items() for k, v in flat(child, f"{key}.{name}".lstrip(".")).items()}


def run_dir_of(path: Path) -> Path:
    """The run directory that `path` is, or that it is a checkpoint of."""
    found = next((p for p in (path, *path.resolve().parents[:2]) if (p / CONFIG).is_file()), None)
    if found is None:
        raise CheckpointError(f"{path}: not a run directory (no {CONFIG}); give the directory that app.train wrote")
    return found
