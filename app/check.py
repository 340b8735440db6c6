"""Everything that can be wrong with a configuration is found here, before anything is built."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

from app.compatibility import between_sections, device_faults
from app.errors import ConfigError
from app.plugins import configure
from app.schema import join, typed

KINDS = {  # config group -> the interface of its classes, imported only when something is checked against it
    "task": "app.interfaces.Task",
    "model": "app.interfaces.Model",
    "criterion": "app.interfaces.Criterion",
    "optimizer": "torch.optim.Optimizer",
    "lr_scheduler": "app.interfaces.LRScheduler",
    "tokenizer": "app.tokenizers.Tokenizer",
    "search": "app.search.Search",
    "scorer": "app.scorers.Scorer",
    "tracker": "app.trackers.Tracker",
    "callbacks": "app.callbacks.Callback",
    "precision": "app.runtime.precision.Precision",
}
SEVERAL = {"scorer", "tracker", "callbacks"}  # groups that hold any number of plug-ins, each under a name of its own


def configure_all(values: Mapping[str, Any], root: type) -> tuple[Any, dict[str, Any]]:
    """The root dataclass, its groups plain dicts; and each group's factory, or its dict of factories.

    `values` are plain and resolved. Raises `ConfigError` with the faults of all groups, all closed sections, and the
    rules between them.
    """
    groups = [field.name for field in fields(root) if field.name in KINDS]
    nodes = {group: node_of(group, values) for group in groups}
    faults: list[str] = []
    plugins: dict[str, Any] = {}
    sections: dict[str, Any] = {}
    for group, node in nodes.items():
        made = {name: attempt(child, group, name, faults) for name, child in node.items()} if group in SEVERAL else {}
        plugins[group] = made if group in SEVERAL else attempt(node, group, "", faults)
        sections[group] = plugins[group].args[0] if getattr(plugins[group], "args", ()) else None
    for field in fields(root):
        if isinstance(field.type, type) and is_dataclass(field.type):
            section = values.get(field.name)
            with suppress(ConfigError):  # told below, together with the root's own faults
                sections[field.name] = typed(field.type, section if isinstance(section, Mapping) else {}, field.name)
    cfg: Any = None
    try:
        cfg = typed(root, {**values, **dict.fromkeys(groups)})
    except ConfigError as error:
        faults += error.faults
    faults += between_sections(sections, plugins)
    if isinstance(getattr(cfg, "device", None), str):
        faults += device_faults(cfg.device, "device")
    if faults:
        raise ConfigError(faults)
    for group, node in nodes.items():
        setattr(cfg, group, node)
    return cfg, plugins


def node_of(group: str, values: Mapping[str, Any]) -> Any:
    """A group's node; a group of several that nothing was chosen for is empty."""
    node = values.get(group, "???")
    return {} if group in SEVERAL and node in ("???", None) else node


def attempt(node: Any, group: str, name: str, faults: list[str]) -> Any:
    """The configured factory, or None and its faults."""
    if node == "???":
        faults.append(f"{group}: nothing is chosen; give {group}=OPTION")
        return None
    try:
        return configure(node, KINDS[group], join(group, name) if name else group)
    except ConfigError as error:
        faults += error.faults
        return None
