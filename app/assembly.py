"""From a configuration to connected objects: for a new run, and for one that is read back from its directory."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from app.config import TrainConfig
from app.errors import CheckpointError, ConfigError
from app.interfaces import Criterion, Model, Task
from app.plugins import configure
from app.run_config import CONFIG, run_dir_of, stored_run
from app.runtime.checkpoint import Checkpoint, find
from app.runtime.distributed import Workers
from app.runtime.gradients import GradientBuckets
from app.runtime.placement import checkpoint_activations
from app.runtime.precision import PreciseOptimizer, Precision
from app.runtime.seeds import set_seed
from app.schema import typed
from app.trainer import Parts, choose_device
from app.user_packages import faults_of_run
from app.utilization import Utilization

if TYPE_CHECKING:
    from app.runtime.sharding import Sharded

logger = logging.getLogger(__name__)

ASSETS = "task"


def build(cfg: TrainConfig, plugins: Mapping[str, Any], task: Task, workers: Workers | None = None) -> Parts:
    """Model, criterion, optimizer and scheduler of a new run; parameters are a function of `cfg.seed`."""
    workers = workers or Workers()
    device = choose_device(cfg.trainer.device)
    set_seed(cfg.seed)
    model = plugins["model"](task).to(device)
    criterion = plugins["criterion"](task).to(device)
    for part in criterion.modules():
        if getattr(part, "teacher_path", None) is not None:
            part.teach(load_teacher(part.teacher_path, task, device))
    precision = plugins["precision"](device)
    if cfg.distributed.checkpoint_activations:
        checkpoint_activations(model)
    sharding = sharded(cfg, model, criterion, precision) if cfg.distributed.strategy == "fsdp" else None
    named = [*model.named_parameters(), *criterion.named_parameters(prefix="criterion")]
    inner = plugins["optimizer"]([(name, p) for name, p in named if p.requires_grad])
    optimizer = PreciseOptimizer(inner, precision)
    callbacks = {name: make() for name, make in plugins["callbacks"].items()}
    logger.info("%s parameters on %s in %s", f"{num_parameters(model):,}", device, optimizer.precision.name)
    parts = Parts(task, model, criterion, optimizer, plugins["lr_scheduler"](inner), callbacks, workers)
    if workers.is_first:
        parts.utilization = Utilization(device, precision.dtype, Path(cfg.cache_dir))
    if sharding is not None:
        parts.gradients = parts.sharding = sharding
    elif workers.world_size > 1:
        parts.gradients = GradientBuckets(optimizer.parameters, cfg.distributed.bucket_cap_mb, cfg.distributed.overlap)
    return parts


def sharded(cfg: TrainConfig, model: Model, criterion: Criterion, precision: Precision) -> "Sharded":
    """The model in parts; its parameters are others from now on."""
    from app.runtime.sharding import Sharded

    return Sharded(cfg.distributed, model, criterion, precision.dtype)


def load_teacher(path: str, task: Task, device: torch.device) -> Model:
    """The model of another run, which must have the same vocabularies. Raises ConfigError where it has others."""
    restored = restore(Path(path), device)
    for side in ("source", "target"):
        own, other = (getattr(each, f"{side}_vocabulary") for each in (task, restored.task))
        if own != other:
            mend = "start the student with checkpoint.finetune_from or prepare both from the same text and settings"
            raise ConfigError([f"criterion.teacher={path}: has another {side} vocabulary; {mend}"])
    return restored.model


def num_parameters(model: torch.nn.Module) -> int:
    """Trained numbers, shared ones counted once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


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
    cfg = config_of(stored_run(run_dir), run_dir)
    if data is not None:
        cfg.task["data"] = data
    if max_tokens is not None:
        cfg.batching.max_tokens_valid = max_tokens
    with faults_of_run(run_dir):
        make_tokenizer = configure(cfg.tokenizer, "app.tokenizers.Tokenizer", "tokenizer", check=False)
        make_task = configure(cfg.task, "app.interfaces.Task", "task", check=False)
        make_model: Callable[[Task], Model] = configure(cfg.model, "app.interfaces.Model", "model", check=False)
    if data is not None:
        configure(cfg.task, "app.interfaces.Task", "task")
    task: Task = make_task(make_tokenizer, cfg.batching)
    task.load(run_dir / ASSETS)
    checkpoint = find(path, cfg.checkpoint.metric, cfg.checkpoint.mode)
    model = make_model(task)
    checkpoint.load_model(model, checkpoint.inference_weights)
    return Restored(cfg, task, model.to(device).eval(), checkpoint, run_dir)


def config_of(values: Mapping[str, Any], run_dir: Path) -> TrainConfig:
    """Stored values as the dataclass that `app.train` had. The groups' own values are checked where they are used."""
    try:
        return typed(TrainConfig, values, check=False)
    except ConfigError as error:
        faults = "; ".join(error.faults)
        raise CheckpointError(f"{run_dir / CONFIG}: not the configuration of a run of this version: {faults}") from None
