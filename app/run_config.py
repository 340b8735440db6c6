"""A run's configuration in its directory: written, read back, and compared with a later command's. No torch here."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from app.config import TrainConfig
from app.errors import CheckpointError, ConfigError, StorageError

CONFIG = "config.yaml"
SHAPING = ["task", "model", "criterion", "optimizer", "lr_scheduler", "tokenizer"]
SHAPING += ["precision", "callbacks", "batching", "seed"]
SHAPING_OF_TRAINER = ["update_freq", "clip_norm", "train_split"]
NOT_SHAPING = {"task.num_workers", "task.on_bad_line", "batching.prefetch", "batching.max_tokens_valid"}


def check_same_run(cfg: TrainConfig, run_dir: Path) -> None:
    """Raise ConfigError where the checkpoints of `run_dir` must not be gone on with, or not with these settings."""
    if not cfg.checkpoint.resume:
        fault = f"checkpoint.resume=false: the checkpoints of {run_dir} would be overwritten; give another run_dir"
        raise ConfigError([fault])
    old, new = (shaping(values) for values in (stored(run_dir / CONFIG), values_of(cfg)))
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        changes = [f"{key}: {old.get(key)} there, {new.get(key)} now" for key in differing]
        mend = "give another run_dir, or the old settings"
        raise ConfigError([f"run_dir={run_dir}: holds a run with other settings; {mend}", *changes])


def shaping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's values, those that its result depends on, under dotted keys."""
    groups = flat({key: values.get(key) for key in SHAPING})
    trainer = {f"trainer.{key}": values.get("trainer", {}).get(key) for key in SHAPING_OF_TRAINER}
    return {key: value for key, value in (groups | trainer).items() if key not in NOT_SHAPING}


def save_config(cfg: TrainConfig, run_dir: Path) -> None:
    """Write the resolved configuration. Raises StorageError."""
    path = run_dir / CONFIG
    temporary = path.with_suffix(".tmp")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(values_of(cfg))), encoding="utf-8")
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
