"""The names of directories, as resolvers for `conf/`: readable, and the same for the same command."""

import hashlib
import json
import re
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# what may differ between two commands that go on with the same run: how long, where, and how it is watched and judged
NOT_IN_RUN_NAME = {"hydra", "checkpoint", "tracker", "cache_dir", "run_dir", "search", "scorer"}
NOT_IN_RUN_NAME_OF_TRAINER = {"max_update", "max_epoch", "stop_time_hours", "patience", "log_interval", "num_threads"}


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("job_name", job_name, replace=True)


def run_name(*, _root_: DictConfig) -> str:
    """`${run_name:}`: what is run, and a hash of all settings that shape the result."""
    try:
        values = {str(name): resolved(_root_, str(name)) for name in _root_ if name not in NOT_IN_RUN_NAME}
    except OmegaConfBaseException:  # told where it stands, by the check; such a run never starts
        return what_is_run()
    if isinstance(values.get("trainer"), dict):
        values["trainer"] = {k: v for k, v in values["trainer"].items() if k not in NOT_IN_RUN_NAME_OF_TRAINER}
    return f"{what_is_run()}-{digest(values)}"


def sweep_name() -> str:
    """`${sweep_name:}`: what is run, and a hash of the sweep's overrides; cached, so that all its jobs have it."""
    return f"{what_is_run()}-{digest(sorted(HydraConfig.get().overrides.task))}"


def job_name(overrides: str) -> str:
    """`${job_name:OVERRIDES}`: a job's directory below its sweep, named by its overrides."""
    name = re.sub(r"[^\w=.,+-]+", "_", overrides).strip("_.") or "job"
    return name if len(name) <= 120 else f"{name[:110]}-{digest(overrides)}"


def what_is_run() -> str:
    """The experiment, or the task and the model."""
    choices = HydraConfig.get().runtime.choices
    parts = [choices["experiment"]] if choices.get("experiment") else [choices.get("task"), choices.get("model")]
    return re.sub(r"[^\w.+-]+", "_", "-".join(str(part) for part in parts))


def resolved(root: DictConfig, name: str) -> Any:
    if OmegaConf.is_missing(root, name):
        return None
    value = root[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def digest(value: Any) -> str:
    """Eight hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]
