"""The values that a configuration's field may take, each rule a line in the schema's `check`.

A schema dataclass may define `check(self) -> Iterator[str]`: it yields one line a fault, `field: what is wrong; mend`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def at_least(cfg: Any, least: float, *names: str) -> Iterator[str]:
    """Fields that must not be smaller than `least`."""
    for name in names:
        if getattr(cfg, name) < least:
            yield f"{name}={getattr(cfg, name)}: must be {least} or more"


def positive(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must be greater than zero."""
    for name in names:
        if not getattr(cfg, name) > 0:
            yield f"{name}={getattr(cfg, name)}: must be greater than 0"


def positive_or(cfg: Any, word: str, *names: str) -> Iterator[str]:
    """Fields, typed `Any`, that must be a whole number greater than zero, or this word."""
    for name in names:
        value = getattr(cfg, name)
        if value != word and (type(value) is not int or value <= 0):
            yield f"{name}={value}: must be a whole number greater than 0, or {word}"


def between(cfg: Any, low: float, high: float, *names: str) -> Iterator[str]:
    """Fields that must lie in low..high, both included."""
    for name in names:
        if not low <= getattr(cfg, name) <= high:
            yield f"{name}={getattr(cfg, name)}: must lie between {low} and {high}"


def probability(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must lie in 0..1, 1 left out: a rate of dropout, a share."""
    for name in names:
        if not 0 <= getattr(cfg, name) < 1:
            yield f"{name}={getattr(cfg, name)}: must be 0 or more and less than 1"


def two_betas(cfg: Any) -> Iterator[str]:
    """The field `betas`: how much of each of two running means an update keeps."""
    if len(cfg.betas) != 2 or not all(0 <= beta < 1 for beta in cfg.betas):
        yield f"betas={cfg.betas}: must be two numbers, each 0 or more and less than 1"


def one_of(cfg: Any, name: str, *choices: str) -> Iterator[str]:
    """A field that must be one of a few words."""
    if getattr(cfg, name) not in choices:
        yield f"{name}={getattr(cfg, name)}: must be one of {', '.join(choices)}"


def divides(cfg: Any, divisor: str, *names: str) -> Iterator[str]:
    """Fields of which another field must be a divisor (attention heads and widths)."""
    for name in names:
        number = getattr(cfg, divisor)
        if number > 0 and getattr(cfg, name) % number:
            yield f"{divisor}={number}: must divide {name}={getattr(cfg, name)}"


def rising_cutoffs(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that list the words after which parts of a vocabulary end; null lists none."""
    for name in names:
        cutoffs = getattr(cfg, name)
        if cutoffs is not None and (not cutoffs or min(cutoffs) <= 0 or sorted(set(cutoffs)) != cutoffs):
            yield f"{name}={cutoffs}: must be rising numbers of words, such as [2000,10000]"


def layer_drop_faults(cfg: Any, side: str) -> Iterator[str]:
    """`SIDE_layerdrop` must be a rate, and `SIDE_layers_to_keep` some of the layers, in their order."""
    yield from probability(cfg, f"{side}_layerdrop")
    kept, layers = getattr(cfg, f"{side}_layers_to_keep"), getattr(cfg, f"{side}_layers")
    if kept is not None and (not kept or sorted(set(kept)) != kept or kept[0] < 0 or kept[-1] >= layers):
        yield f"{side}_layers_to_keep={kept}: must be rising numbers from 0 to {layers - 1}, such as [0,2]"


def existing_file(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that name a file to read; null names none."""
    for name in names:
        value = getattr(cfg, name)
        if value is not None and not Path(value).is_file():
            yield f"{name}={value}: no such file"


def writable_directory(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that name a directory to write into, which need not exist yet."""
    for name in names:
        path = Path(getattr(cfg, name)).absolute()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        if not there.is_dir():
            yield f"{name}={getattr(cfg, name)}: {there} is not a directory; give another"
        elif not os.access(there, os.W_OK | os.X_OK):
            yield f"{name}={getattr(cfg, name)}: no permission to write in {there}; give another"


def directories_of(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must name a directory; null names none."""
    for name in names:
        path = getattr(cfg, name)
        if path is not None and not Path(path).is_dir():
            yield f"{name}={path}: no such directory"


def new_directory(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must name a directory that is not there yet, or is empty."""
    for name in names:
        path = Path(getattr(cfg, name))
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            yield f"{name}={path}: is there already; give a new directory"


def lines_of(cfg: Any, *names: str) -> Iterator[str]:
    """Fields that must name a file that can be read, or `-`."""
    for name in names:
        path = getattr(cfg, name)
        if path not in (None, "-") and (not Path(path).exists() or Path(path).is_dir()):
            yield f"{name}={path}: no such file"
