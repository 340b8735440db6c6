"""From a configuration to connected objects: for a new run, and for one that is read back from its directory."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from app.config import TrainConfig
from app.errors import CheckpointError, ConfigError, StorageError
from app.interfaces import Model, Task
from app.plugins import configure
from app.runtime.checkpoint import Checkpoint, find
from app.runtime.precision import PreciseOptimizer
from app.runtime.seeds import set_seed
from app.trainer import Parts, choose_device

logger = logging.getLogger(__name__)

CONFIG, ASSETS = "config.yaml", "task"
SHAPING = ["task", "model", "criterion", "optimizer", "lr_scheduler", "tokenizer"]
SHAPING += ["precision", "callbacks", "batching", "seed"]
SHAPING_OF_TRAINER = ["update_freq", "clip_norm", "train_split"]
NOT_SHAPING = {"task.num_workers", "task.on_bad_line", "batching.prefetch", "batching.max_tokens_valid"}


def build(cfg: TrainConfig, plugins: Mapping[str, Any], task: Task) -> Parts:
    """Model, criterion, optimizer and scheduler of a new run; parameters are a function of `cfg.seed`."""
    device = choose_device(cfg.trainer.device)
    set_seed(cfg.seed)
    model = plugins["model"](task).to(device)
    criterion = plugins["criterion"](task).to(device)
    named = [*model.named_parameters(), *criterion.named_parameters(prefix="criterion")]
    inner = plugins["optimizer"]([(name, p) for name, p in named if p.requires_grad])
    optimizer = PreciseOptimizer(inner, plugins["precision"](device))
    callbacks = {name: make() for name, make in plugins["callbacks"].items()}
    logger.info("%s parameters on %s in %s", f"{num_parameters(model):,}", device, optimizer.precision.name)
    return Parts(task, model, criterion, optimizer, plugins["lr_scheduler"](inner), callbacks)


def num_parameters(model: torch.nn.Module) -> int:
    """Trained numbers, shared ones counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


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


@dataclass
class Restored:
    """A trained model and all that it needs to translate."""

    cfg: TrainConfig  # groups as plain dicts
    task: Task
    model: Model
    checkpoint: Checkpoint
    run_dir: Path


def restore(
    path: Path, device: torch.device | str = "cpu", data: str | None = None, max_tokens: int | None = None
) -> Restored:
    """Read a run directory (its best checkpoint) or one checkpoint in it. The run's data need not be there any more.

    `data` takes the place of task.data, `max_tokens` that of batching.max_tokens_valid.
    Raises CheckpointError where anything is missing or damaged, and ConfigError where a class is not allowed.
    """
    run_dir = run_dir_of(path)
    values = stored(run_dir / CONFIG)
    cfg = config_of(values, run_dir)
    if data is not None:
        cfg.task["data"] = data
    if max_tokens is not None:
        cfg.batching.max_tokens_valid = max_tokens
    make_tokenizer = configure(cfg.tokenizer, "app.tokenizers.Tokenizer", "tokenizer", check=False)
    make_task = configure(cfg.task, "app.interfaces.Task", "task", check=data is not None)
    task: Task = make_task(make_tokenizer, cfg.batching)
    task.load(run_dir / ASSETS)
    make_model: Callable[[Task], Model] = configure(cfg.model, "app.interfaces.Model", "model", check=False)
    checkpoint = find(path, cfg.checkpoint.metric, cfg.checkpoint.mode)
    model = make_model(task)
    checkpoint.load_model(model, checkpoint.inference_weights)
    return Restored(cfg, task, model.to(device).eval(), checkpoint, run_dir)


def run_dir_of(path: Path) -> Path:
    """The run directory that `path` is, or that it is a checkpoint of."""
    found = next((p for p in (path, *path.resolve().parents[:2]) if (p / CONFIG).is_file()), None)
    if found is None:
        raise CheckpointError(f"{path}: not a run directory (no {CONFIG}); give the directory that app.train wrote")
    return found


def config_of(values: Mapping[str, Any], run_dir: Path) -> TrainConfig:
    """Stored values as the dataclass that `app.train` had."""
    sections = {f.name: f.type for f in fields(TrainConfig)}
    try:
        made = {name: section(sections[name], values[name]) for name in sections}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{run_dir / CONFIG}: not the configuration of a run ({error})") from None
    return TrainConfig(**made)


def section(kind: Any, value: Any) -> Any:
    return kind(**value) if isinstance(value, dict) and hasattr(kind, "__dataclass_fields__") else value
