"""What a sweep varies, from its overrides: `a,b,c`, `choice(...)`, `range(...)`, `interval(...)`, `tag(log, ...)`."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override

from app.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """One of several values, each as likely."""

    key: str
    options: tuple[str, ...]  # as they stand in an override

    def at(self, share: float) -> str:
        """The override for a number in [0, 1)."""
        return f"{self.key}={self.options[int(share * len(self.options))]}"


@dataclass(frozen=True)
class Interval:
    """A number between two others; uniform, or uniform in its logarithm (`tag(log, interval(1e-5, 1e-3))`)."""

    key: str
    low: float
    high: float
    is_log: bool = False
    is_int: bool = False  # `tag(int, interval(1, 9))`: whole numbers, both ends included

    def at(self, share: float) -> str:
        """The override for a number in [0, 1)."""
        low, high = (self.low, self.high + 1) if self.is_int else (self.low, self.high)
        value = low * (high / low) ** share if self.is_log else low + share * (high - low)
        return self.override(value)

    def override(self, value: float) -> str:
        """Six digits are enough, and make names that can be read."""
        return f"{self.key}={int(min(value, self.high)) if self.is_int else f'{value:.6g}'}"


Axis = Choice | Interval


def axes_of(overrides: Sequence[Override]) -> tuple[list[Axis], list[str]]:
    """What varies, and the overrides that stay as they are. Raises ConfigError for what cannot be searched."""
    axes: list[Axis] = []
    fixed: list[str] = []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
        elif override.is_discrete_sweep():
            axes.append(Choice(key, tuple(override.sweep_string_iterator())))
        else:
            axes.append(interval(key, override))
    return axes, fixed


def interval(key: str, override: Override) -> Interval:
    sweep = override.value()
    assert isinstance(sweep, IntervalSweep)
    assert sweep.start is not None
    assert sweep.end is not None
    unknown = sweep.tags - {"log", "int", "float"}
    if unknown:
        raise ConfigError([f"{key}: tag {', '.join(sorted(unknown))} is not known; tags are log and int"])
    made = Interval(key, float(sweep.start), float(sweep.end), "log" in sweep.tags, "int" in sweep.tags)
    if not (math.isfinite(made.low) and math.isfinite(made.high) and made.low < made.high):
        raise ConfigError([f"{key}: interval({made.low:g}, {made.high:g}) is empty; give the lower end first"])
    if made.is_log and made.low <= 0:
        raise ConfigError([f"{key}: a logarithmic interval starts above 0, not at {made.low:g}"])
    return made


def point(axes: Sequence[Axis], seed: int, number: int) -> list[str]:
    """Trial `number` of a random search: the same for the same seed, however many others there are."""
    draw = random.Random(f"{seed} {number}")
    return [axis.at(draw.random()) for axis in axes]
