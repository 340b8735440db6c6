"""Plain values are merged onto a dataclass here, and every fault in them is found at once."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from app.errors import ConfigError

T = TypeVar("T")
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


def typed(schema: type[T], values: Mapping[str, Any], key: str = "", check: bool = True) -> T:
    """An instance of the dataclass `schema` made from plain, resolved values, which stand at `key` of the whole config.

    Raises `ConfigError` with all of: unknown, missing and ill-typed fields, numbers that are not finite,
    interpolations that are not resolved, and what the dataclass's `check` has to say. Nested dataclasses too.
    `check=False` leaves that last part out: for stored values, which were checked where their files were.
    """
    hints = get_type_hints(schema)
    known: list[Field[Any]] = [field for field in fields(schema) if field.init]  # type: ignore[arg-type]
    faults = list(unknown_keys(values, [field.name for field in known], key))
    config = OmegaConf.structured(schema)
    for field in known:
        faults += take_field(
            config, field, hints[field.name], values.get(field.name, "???"), join(key, field.name), check
        )
    if faults:
        raise ConfigError(faults)
    instance: Any = OmegaConf.to_object(config)
    if check and hasattr(instance, "check"):
        faults = list(own_faults(instance, key))
    if faults:
        raise ConfigError(faults)
    return instance  # type: ignore[no-any-return]


def own_faults(instance: Any, key: str) -> Iterator[str]:
    """What the dataclass's `check` has to say; and what the file system has, of a path that cannot be one."""
    try:
        yield from (join(key, fault) for fault in instance.check())
    except OSError as error:
        yield f"{join(key, str(error.filename))}: {error.strerror}; give another path"


def take_field(config: Any, field: Field[Any], hint: Any, value: Any, key: str, check: bool) -> Iterator[str]:
    """Merge one value into a structured config, or yield what is wrong with it."""
    if value == "???":
        if field.default is MISSING and field.default_factory is MISSING:
            yield f"{key}: missing; give it with {key}=..."
        return
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        try:
            typed(hint, value, key, check)
        except ConfigError as error:
            yield from error.faults
            return
    elif faults := list(bad_leaves(value, key)):
        yield from faults
        return
    try:
        config.merge_with({field.name: value})
    except OmegaConfBaseException:
        yield f"{key}={value}: must be {describe(hint)}"


def bad_leaves(value: Any, key: str) -> Iterator[str]:
    """Values that no field may have, at any depth: missing, not finite, or an interpolation.

    What is left of interpolations at this point comes from a file that Hydra did not compose, and is never resolved.
    """
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from bad_leaves(child, join(key, str(name)))
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from bad_leaves(child, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key}={value}: must be a finite number"
    elif value == "???":
        yield f"{key}: missing; give it with {key}=..."
    elif isinstance(value, str) and "${" in value:
        yield f"{key}={value}: holds an interpolation, which is not resolved here; write the value itself"


def unknown_keys(values: Iterable[str], known: list[str], key: str) -> Iterator[str]:
    for name in values:
        if name not in known:
            yield f"{join(key, str(name))}: no such key{nearest(str(name), known, key)}"


def nearest(word: str, words: Iterable[str], key: str = "") -> str:
    """`; the nearest is ...`, or what there is to choose from; nothing where the list would be long."""
    words = sorted(words)
    if close := difflib.get_close_matches(word, words, 1):
        return f"; the nearest is {join(key, close[0])}"
    return f"; there are {', '.join(words)}" if 0 < len(words) <= 24 else ""


def join(key: str, name: str) -> str:
    """A dotted key; `key` is empty at the root."""
    return f"{key}.{name}" if key else name


def describe(hint: Any) -> str:
    """A type as a person says it: `a whole number or null`."""
    if hint in WORDS:
        return WORDS[hint]
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(describe(part) for part in get_args(hint))
    if get_origin(hint) in (list, tuple):
        return f"a list, each {describe(get_args(hint)[0])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.name for member in hint)
    return f"of type {getattr(hint, '__name__', hint)}"
