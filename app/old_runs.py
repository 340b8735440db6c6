"""Configurations of runs from before there was a setting: it is taken to be what `conf/` says of it today.

That is what the code did without it, by a rule of this program (docs/architecture.md) whose exceptions are in `DID`.
Only files are read, found by the `_target_` that they name: nothing is imported, and of what was stored nothing is
resolved.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache, reduce
from importlib.util import find_spec
from operator import getitem
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from app.catalogue import values_of
from app.compose import CONF
from app.config import TrainConfig
from app.plugins import PACKAGES

DID = {"batching.window": 0}  # what was done before there was the setting, where its default does something else
LAST = fields(TrainConfig)[-1].name  # a stored configuration that has it is whole
NAMES = re.compile(r"^_target_: *[\"']?([\w.]+)", re.MULTILINE)
OTHERS = ("torch.",)  # classes of other libraries have defaults of their own

Place = tuple[Any, ...]  # the keys that lead to a value


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """Add to a run's stored values the settings that they lack and `conf/` has; returns these, by their dotted keys.

    A default that is another setting's value takes the run's. What was a choice (a whole model), or what the options of
    a class do not agree on, is not added: whoever makes something of the values names it as missing.
    """
    lacking: dict[Place, Any] = {}
    sections, packages = today(), frozenset(PACKAGES)
    for place, node in nodes(values):
        if isinstance(target := node.get("_target_"), str):
            known = defaults_of(target, packages)
        elif place:
            known = sections.get(place[0], {}) if len(place) == 1 else {}
        else:
            known = sections if LAST in node else {}
        lacking |= {(*place, name): value for name, value in known.items() if name not in node}
    added = {}
    for place, value in resolved(values, lacking):
        key = ".".join(map(str, place))
        added[key] = reduce(getitem, place[:-1], values)[place[-1]] = DID.get(key, value)
    return added


def nodes(values: Mapping[Any, Any], place: Place = ()) -> Iterator[tuple[Place, Mapping[Any, Any]]]:
    """All mappings in `values`, itself first, and where they stand."""
    yield place, values
    for name, child in values.items():
        if isinstance(child, Mapping):
            yield from nodes(child, (*place, name))


@cache
def today() -> dict[str, dict[str, Any]]:
    """The sections of `app.train` as they are where nothing is said of them; of the groups, those that are empty."""
    train: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"))
    chosen = {name: option for each in train["defaults"] if isinstance(each, dict) for name, option in each.items()}
    sections = {name: {} for name, option in chosen.items() if option is None} | train
    sections["distributed"] = values_of("distributed", chosen["distributed"], [CONF])
    return {f.name: sections[f.name] for f in fields(TrainConfig) if isinstance(sections.get(f.name), dict)}


@cache
def defaults_of(target: str, packages: frozenset[str]) -> dict[str, Any]:
    """Of the options whose own files name this class, the values that are the same in all."""
    places = [*(Path(home) / "conf" for name in sorted(packages - {"app"}) for home in homes(name)), CONF]
    first, *others = [values_of(*option, places) for option in options(tuple(places)).get(target, [])] or [{}]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def homes(package: str) -> list[str]:
    spec = find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


@cache
def options(places: tuple[Path, ...]) -> dict[str, list[tuple[str, str]]]:
    """Group and name of the options whose own files name a class, by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in (path for place in places for path in sorted(place.glob("*/*.yaml"))):
        for target in NAMES.findall(path.read_text(encoding="utf-8")):
            if not target.startswith(OTHERS):
                found.setdefault(target, []).append((path.parent.name, path.stem))
    return found


def resolved(values: Mapping[Any, Any], lacking: Mapping[Place, Any]) -> Iterator[tuple[Place, Any]]:
    """The defaults with their interpolations resolved; not those that cannot be, or lead to a stored interpolation."""
    tree = OmegaConf.create(closed(values))
    for place, value in lacking.items():
        reduce(getitem, place[:-1], tree)[place[-1]] = value
    for place in lacking:
        try:
            value = reduce(getitem, place, tree)
            yield place, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException:
            continue


def closed(value: Any) -> Any:
    """Stored values without the texts that OmegaConf would resolve."""
    if isinstance(value, Mapping):
        return {name: closed(child) for name, child in value.items() if not is_open(child)}
    return [closed(child) for child in value if not is_open(child)] if isinstance(value, list) else value


def is_open(value: Any) -> bool:
    return isinstance(value, str) and "${" in value
