"""How a run begins that is not new: from its own checkpoint, or from what another run has learnt."""

import logging
from pathlib import Path
from typing import Any

import torch

from app.config import TrainConfig
from app.errors import CheckpointError, ConfigError
from app.run_config import CONFIG, flat, run_dir_of, stored
from app.run_state import RESETS
from app.runtime.checkpoint import Checkpoint, find
from app.trainer import Trainer

logger = logging.getLogger(__name__)

SHOWN = 20  # weights that were not taken are listed up to this number


def resume(cfg: TrainConfig, trainer: Trainer, newest: Checkpoint) -> None:
    """Go on from a checkpoint of the run. Settings of the optimizer that `checkpoint.may_differ` names are new."""
    fresh = [dict(group) for group in trainer.optimizer.inner.param_groups]
    trainer.state.load(newest)
    named = tuple(f"{key}." for key in cfg.checkpoint.may_differ)
    set_again(trainer.optimizer.inner, fresh, [key for key in cfg.optimizer if f"optimizer.{key}.".startswith(named)])
    logger.info("going on from %s", newest.path)


def start_from(cfg: TrainConfig, trainer: Trainer, path: Path) -> None:
    """Begin with what another run gives: its weights, and what no `checkpoint.reset_...` keeps out.

    The flags are fairseq's, for a new run. fairseq's --restore-file goes on in the directory of the old run, which
    leaves checkpoints of two runs there. Raises ConfigError where a state would be given to another class.
    """
    settings = cfg.checkpoint
    wanted = [part for part in RESETS if not getattr(settings, f"reset_{part}")]
    having_classes = [part for part in ("optimizer", "lr_scheduler") if part in wanted]
    keys = ["checkpoint.metric", "checkpoint.mode", *(f"{part}._target_" for part in having_classes)]
    old = stored_at(run_dir_of(path) / CONFIG, *keys)
    faults = []
    for part in having_classes:
        there, here = old[f"{part}._target_"], getattr(cfg, part)["_target_"]
        if there != here:
            mend = f"choose that one, or checkpoint.reset_{part}=true"
            faults.append(f"checkpoint.reset_{part}=False: {path} was trained with {there}, not {here}; {mend}")
    if faults:
        raise ConfigError(faults)
    start = find(path, old["checkpoint.metric"], old["checkpoint.mode"])
    weights = start.inference_weights if settings.reset_optimizer else "model.safetensors"
    with trainer.sharding.opened(trainer.model, writes=True) as model:
        left_out = start.load_model(model, weights, settings.finetune_partial)
    if wanted:
        fresh = [dict(group) for group in trainer.optimizer.inner.param_groups]
        trainer.state.load_parts(start, start.state(), wanted)
        set_again(trainer.optimizer.inner, fresh, list(cfg.optimizer))
    logger.info("starting from %s: %s", start.path, ", ".join(["weights", *wanted]))
    tell(left_out, len(trainer.model.state_dict()))


def stored_at(path: Path, *keys: str) -> dict[str, Any]:
    """Of a stored configuration, the values of these dotted keys. Raises CheckpointError where one has none."""
    values = flat(stored(path))
    if missing := [key for key in keys if values.get(key) is None]:
        raise CheckpointError(f"{path}: has no {', no '.join(missing)}; put the file back that app.train wrote")
    return {key: values[key] for key in keys}


def set_again(optimizer: torch.optim.Optimizer, fresh: list[dict[str, Any]], keys: list[str]) -> None:
    """Settings `keys` as they were before a state was loaded over them, but `lr`, which the scheduler sets."""
    for group, before in zip(optimizer.param_groups, fresh):
        group.update({key: before[key] for key in keys if key in before and key != "lr"})


def tell(left_out: list[str], num_weights: int) -> None:
    """How many weights a start took, and which it did not."""
    without = sum(not line.startswith("unexpected ") for line in left_out)
    logger.info("%d of %d weights taken", num_weights - without, num_weights)
    for line in left_out[:SHOWN]:
        logger.warning("not taken: %s", line)
    if len(left_out) > SHOWN:
        logger.warning("not taken: %d weights more", len(left_out) - SHOWN)
