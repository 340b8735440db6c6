"""A command line becomes configurations, and what does not compose is explained.

Hydra stops at the first override that it cannot use and says so at length. Here the overrides are taken one at a time
when that happens, so that every one of them is answered in a line, and the rest of the configuration is still checked.
"""

import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from app.schema import join, nearest

CONF = Path(__file__).resolve().parents[1] / "conf"
NODES = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}  # OmegaConf's types, as we say


class Composed(NamedTuple):
    """What became of a command line."""

    overrides: list[str]
    node: DictConfig | None  # composed from the overrides that can be used; None where nothing composes
    faults: list[str]


@contextmanager
def composing() -> Iterator[None]:
    """Compose from `conf/`. Hydra's warnings are left out; what they warn of is found and told by the checks.

    A command that runs may compose the configuration of another: Hydra's own state is put back after.
    """
    hydra = GlobalHydra.instance()
    running, hydra.hydra = hydra.hydra, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with initialize_config_dir(str(CONF), version_base="1.3", job_name="check"):
                yield
    finally:
        hydra.hydra = running


def with_config_dir(overrides: list[str], directory: str) -> list[str]:
    """The overrides with `--config-dir` before what `hydra.searchpath` lists, for Hydra reads one override of it."""
    path, key = f"file://{Path(directory).resolve()}", "hydra.searchpath=["
    listed = next((text for text in overrides if text.startswith(key)), None)
    if listed is None:
        return [*overrides, f"{key}{path}]"]
    rest = listed.removeprefix(key)
    merged = f"{key}{path}{rest}" if rest.strip() == "]" else f"{key}{path},{rest}"
    return [merged if text is listed else text for text in overrides]


def compose_one(config_name: str, overrides: list[str]) -> Composed:
    """Compose; if that fails, say which overrides are to blame and compose from the others."""
    faults = [fault for text in overrides if (fault := reading_fault(text)) is not None]
    readable = [text for text in overrides if reading_fault(text) is None]
    try:
        return Composed(overrides, compose(config_name, readable, return_hydra_config=True), faults)
    except Exception:  # not only Hydra's own: some overrides make it raise ValueError, OSError, AssertionError, ...
        kept = [text for text in readable if text.startswith("hydra.searchpath=")]
    try:
        node = compose(config_name, kept, return_hydra_config=True)
    except Exception as error:
        return Composed(overrides, None, [*faults, ": ".join([*map(printable, kept), reason(error)])])
    for override in sorted((text for text in readable if text not in kept), key=composing_order):
        try:
            node = compose(config_name, [*kept, override], return_hydra_config=True)
        except Exception as error:
            faults.append(explain(config_name, override, kept, node, error))
        else:
            kept.append(override)
    return Composed(overrides, node, faults)


def compose_sweep(config_name: str, overrides: list[str]) -> Iterator[Composed]:
    """Every point of a sweep. Points that only a sweeper can choose (intervals) are left to it."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    axes: list[list[str]] = []
    unread: list[str] = []
    for text in sweep_parameters(config_name, overrides) + overrides:
        try:
            (override,) = parser.parse_overrides([text])
            swept = override.is_sweep_override()
            if not swept:
                axes.append([text])
            elif override.is_discrete_sweep():
                axes.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        except Exception:  # told by `compose_one`, with the other faults
            unread.append(text)
    for point in itertools.islice(itertools.product(*axes), 1 if unread else None):
        yield compose_one(config_name, [*point, *unread])


def sweep_parameters(config_name: str, overrides: list[str]) -> list[str]:
    """What the configuration itself sweeps over, below `hydra.sweeper.params`, as overrides."""
    node = compose_one(config_name, overrides).node
    parameters = OmegaConf.select(node, "hydra.sweeper.params") if node is not None else None
    return [f"{key}={value}" for key, value in (parameters or {}).items()]


def composing_order(override: str) -> bool:
    """The choices of groups first, then values: a value's key may come from what is chosen."""
    key = override.partition("=")[0]
    return "." in key or key.startswith(("+", "~"))


def reading_fault(override: str) -> str | None:
    """What is wrong with an override before anything is composed."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except Exception:
        return (
            f"{printable(override)}: cannot be read; write key=value, and quote spaces, commas and brackets in values"
        )
    if parsed.is_sweep_override():
        return f"{printable(override)}: several values are a sweep, which needs -m; a list is written [a,b]"
    return None


def explain(config_name: str, override: str, kept: list[str], node: DictConfig, error: Exception) -> str:
    """One line for an override that does not compose: the nearest key, the options of the group, or Hydra's reason."""
    parsed = OverridesParser.create().parse_override(override)
    key, value = parsed.key_or_group, None if parsed.is_delete() else parsed.value()
    shown = printable(override)
    search_path = [text for text in kept if text.startswith("hydra.searchpath=")]
    loader = GlobalHydra.instance().config_loader()
    options = loader.get_group_options(key, config_name=config_name, overrides=search_path)
    chosen = value if isinstance(value, list) else [value]
    if options and not parsed.is_delete() and any(option not in options for option in chosen):
        return f"{shown}: no such option of {printable(key)}{nearest(str(value), options)}"
    keys = list(all_keys(node))
    if options or key in keys or key.partition(".")[0] == "hydra":
        return f"{shown}: {reason(error)}"
    return f"{shown}: no such key{nearest(key, keys)}"


def reason(error: BaseException) -> str:
    """The first telling line of an exception: of its cause, if that is OmegaConf's, which knows the value and type."""
    if isinstance(error.__cause__, OmegaConfBaseException):
        error = error.__cause__
    if (mark := getattr(error, "problem_mark", None)) is not None:  # a file that is not YAML
        return f"{mark.name}:{mark.line + 1}: {getattr(error, 'problem', error)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    wanted = re.search(r"could not be converted to (Integer|Float)|is not a valid (bool)", lines[0])
    return f"must be {NODES[wanted[1] or wanted[2]]}" if wanted else printable(lines[0])


def printable(text: str, longest: int = 160) -> str:
    """Text that is safe and short enough for one line of a terminal."""
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    return text if len(text) <= longest else text[:longest] + "..."


def all_keys(node: DictConfig, key: str = "") -> Iterator[str]:
    """Every dotted key of a config, hydra's own settings left out."""
    for name in map(str, node):
        full = join(key, name)
        if full == "hydra":
            continue
        yield full
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            child = node[name]
            if isinstance(child, DictConfig):
                yield from all_keys(child, full)


def plain_values(node: DictConfig, faults: list[str]) -> dict[str, Any]:
    """The groups and sections of a composed config as plain values, hydra's own settings left out. See `plain`."""
    return {str(name): plain_item(node, name, str(name), faults) for name in node if name != "hydra"}


def plain(node: Any, key: str, faults: list[str]) -> Any:
    """Dicts, lists and values, every interpolation resolved; what cannot be resolved is added to `faults`."""
    if isinstance(node, DictConfig):
        return {name: plain_item(node, name, join(key, str(name)), faults) for name in node}
    if isinstance(node, ListConfig):
        return [plain_item(node, index, f"{key}[{index}]", faults) for index in range(len(node))]
    return node


def plain_item(node: DictConfig | ListConfig, name: Any, key: str, faults: list[str]) -> Any:
    if OmegaConf.is_missing(node, name):
        return "???"
    try:
        return plain(node[name], key, faults)
    except (OmegaConfBaseException, RecursionError) as error:
        faults.append(f"{key}: {reason(error)}")
        return None
