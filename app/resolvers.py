"""Resolvers for `conf/`: the names of directories, readable and the same for the same command; the least of numbers."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

SWEPT = "SEQWRIGHT_SWEPT"  # names the keys that a sweep varies, in the environment of its jobs

# what may differ between two commands that go on with the same run: how long, where, and how it is watched and judged
NOT_IN_RUN_NAME = {"hydra", "checkpoint", "tracker", "cache_dir", "run_dir", "search", "scorer"}
NOT_IN_RUN_NAME_OF = {
    "trainer": {"max_update", "max_epoch", "stop_time_hours", "patience", "log_interval", "num_threads"}
    | {"max_nonfinite_updates", "try_longest_batch"},
    "distributed": {"strategy", "world_size", "backend", "bucket_cap_mb", "overlap", "check_interval"}
    | {"first_timeout", "min_timeout", "timeout_factor", "checkpoint_activations", "reshard_after_forward"},
    "task": {"num_workers", "on_bad_line"},
    "batching": {"prefetch", "num_workers", "worker_timeout", "max_tokens_valid"},
}


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("least", least, replace=True)
    OmegaConf.register_new_resolver("job_name", job_name, replace=True)
    OmegaConf.register_new_resolver("sweep_group", sweep_group, replace=True)
    # Hydra resolves this for the whole sweep first, and gives every job what is cached there; it could not know
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True, use_cache=True)


def least(*numbers: float) -> float:
    """`${least:500,${trainer.max_update}}` is a warm-up that fits into a run that is cut short, as by debug=short."""
    return min(numbers)


def run_name(*, _root_: DictConfig) -> str:
    """What is run, and a hash of all settings that shape the result."""
    settings = _root_.hydra if "hydra" in _root_ else HydraConfig.get()  # not in what `--cfg job` shows
    name = what_is_run(settings.runtime.choices)
    try:
        values = {str(name): resolved(_root_, str(name)) for name in _root_ if name not in NOT_IN_RUN_NAME}
    except OmegaConfBaseException:  # told where it stands, by the check; such a run never starts
        return name
    for group, names in NOT_IN_RUN_NAME_OF.items():
        if isinstance(values.get(group), dict):
            values[group] = {k: v for k, v in values[group].items() if k not in names}
    return f"{name}-{digest(values)}"


def note_swept(overrides: Sequence[str]) -> None:
    """Tell this process, and the jobs that it starts, what a sweep varies: a job knows its own values only."""
    parsed = []
    for text in overrides:
        with suppress(Exception):  # an override that cannot be read is told by the check
            parsed.append(OverridesParser.create().parse_override(text))
    os.environ[SWEPT] = ",".join(each.get_key_element() for each in parsed if each.is_sweep_override())


def sweep_name(overrides: ListConfig, sweeper: DictConfig, choices: DictConfig) -> str:
    """What is run, what is varied, and a hash of everything that was asked for."""
    asked = digest([*sorted(overrides), str(sweeper.get("params"))])
    return short("-".join(part for part in (what_is_run(choices), os.environ.get(SWEPT, ""), asked) if part))


def job_name(overrides: ListConfig) -> str:
    """A job's directory below its sweep: its values of what is varied."""
    swept = os.environ.get(SWEPT, "").split(",")
    return short(",".join(text for text in overrides if text.partition("=")[0] in swept) or "job")


def sweep_group(*, _root_: DictConfig) -> str | None:
    """The name of the sweep that a run belongs to, for trackers that show its runs together; None for a single run."""
    if "hydra" in _root_ or not HydraConfig.initialized():  # a check, or what `--cfg job` shows
        return None
    settings = HydraConfig.get()
    return Path(settings.sweep.dir).name if settings.mode == RunMode.MULTIRUN else None


def what_is_run(choices: Any) -> str:
    """The experiment, or the task and the model."""
    parts = [choices["experiment"]] if choices.get("experiment") else [choices.get("task"), choices.get("model")]
    return short("-".join(str(part) for part in parts))


def short(name: str, longest: int = 120) -> str:
    """A name that is safe for a file, with a hash where it would be too long."""
    safe = re.sub(r"[^\w=.,+-]+", "_", name).strip("_.")
    return safe if len(safe) <= longest else f"{safe[: longest - 9]}-{digest(name)}"


def resolved(root: DictConfig, name: str) -> Any:
    if OmegaConf.is_missing(root, name):
        return None
    value = root[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def digest(value: Any) -> str:
    """Eight hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]
