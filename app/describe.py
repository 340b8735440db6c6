"""`python -m app.describe model=lstm`: what an option is, and every setting of it with type, value and meaning."""

import argparse
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from app.catalogue import (
    Field,
    comment_of,
    directories,
    fields_of,
    file_of,
    first_sentence,
    keywords_of,
    target_of,
)
from app.check import KINDS, SEVERAL
from app.cli import store_schema, told
from app.compose import CONF, compose_one, composing, plain, with_config_dir
from app.config import TrainConfig
from app.errors import ConfigError
from app.plugins import open_search_paths, resolve, schema_of
from app.schema import nearest

GROUPS = {
    "task": "which data, and what is to be learnt from it",
    "model": "architectures, from a family's own name to the sizes of papers",
    "criterion": "the loss",
    "optimizer": "how gradients become steps",
    "lr_scheduler": "the learning rate at every update",
    "tokenizer": "text to pieces and back",
    "search": "from next-token scores to outputs",
    "scorer": "how good outputs are; several at once",
    "tracker": "where numbers are sent beside the screen and metrics.jsonl; several at once",
    "callbacks": "what hangs on training without being its flow; several at once",
    "precision": "number formats",
    "experiment": "whole recipes",
    "debug": "short runs, to see that everything runs",
}
SECTIONS = {
    name: hint for name, hint in get_type_hints(TrainConfig).items() if isinstance(hint, type) and is_dataclass(hint)
}
WIDTH = 110


def overview() -> Iterator[str]:
    """Groups and sections, a line each."""
    yield "Groups (python -m app.describe GROUP lists the options, GROUP=OPTION describes one):"
    for group, meaning in GROUPS.items():
        yield f"  {group:14} {meaning}"
    yield "Sections (python -m app.describe SECTION):"
    for section, schema in SECTIONS.items():
        yield f"  {section:14} {first_sentence(schema.__doc__)}"


def options_of(group: str, node: DictConfig, search_path: list[str]) -> Iterator[str]:
    """The options of a group, with what each is."""
    loader, places = GlobalHydra.instance().config_loader(), directories(node.hydra.runtime.config_sources)
    for option in loader.get_group_options(group, config_name="train", overrides=search_path):
        path, target = file_of(group, option, places), target_of(group, option, places)
        said = comment_of(path) if path is not None else ""
        if not said and target is not None and group in KINDS:
            found = resolve(target, KINDS[group], group)
            said = first_sentence(sys.modules[found.__module__].__doc__ or found.__doc__)
        yield from wrapped(f"  {group}={option}  ".ljust(36), said)


def option(group: str, name: str, node: DictConfig) -> Iterator[str]:
    """One option: its files, its class, its settings."""
    path = file_of(group, name, directories(node.hydra.runtime.config_sources))
    yield f"{group}={name}   ({shown(path)})"
    if path is not None and (comment := comment_of(path)):
        yield from wrapped("  ", comment)
    if group not in KINDS:
        yield textwrap.indent(path.read_text(encoding="utf-8") if path is not None else "", "  ").rstrip()
        return
    values = plain(node[group], group, [])
    for key, child in values.items() if group in SEVERAL else [("", values)]:
        yield from plugin(child, f"{group}.{key}" if key else group)


def plugin(values: Mapping[str, Any], key: str) -> Iterator[str]:
    """The class that a node names, and the settings it is given there."""
    target = resolve(values["_target_"], KINDS[key.partition(".")[0]], key)
    yield f"\n{target.__module__}.{target.__qualname__}   ({shown(Path(inspect.getfile(target)))})"
    known = "cfg" in inspect.signature(target).parameters
    said = inspect.cleandoc(target.__doc__ or "")
    yield textwrap.indent(said if known else said.partition("\n\n")[0], "  ")  # other libraries' pages are long
    yield f"\nSettings (change one with {key}.NAME=VALUE):"
    yield from settings(fields_of(schema_of(target, key)) if known else keywords_of(target), values)


def settings(known: Iterator[Field], values: Mapping[str, Any]) -> Iterator[str]:
    for name, kind, meaning in known:
        value = values.get(name)
        nested = isinstance(value, dict) and bool(value)
        yield f"  {name}{f' = {written(value)}' if name in values and not nested else ''}   ({kind})"
        yield from wrapped("      ", meaning) if meaning else ()
        if nested:
            yield textwrap.indent(OmegaConf.to_yaml(value).rstrip(), "          ")


def written(value: Any) -> str:
    """A value as YAML and the command line write it."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def shown(path: Path | None) -> str:
    """A path as short as it can be told: the program's own below its home."""
    if path is None:
        return "no file"
    return str(path.relative_to(CONF.parent)) if path.is_relative_to(CONF.parent) else str(path)


def wrapped(head: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * min(len(head), 8))
    return lines or [head.rstrip()]


def described(subject: str | None, overrides: list[str]) -> Iterator[str]:
    """The lines for one subject: nothing, a group, a section, or group=option. Raises ConfigError for any other."""
    if subject is None:
        yield from overview()
        return
    group, is_option, name = subject.partition("=")
    if group not in GROUPS.keys() | SECTIONS.keys():
        raise ConfigError([f"{group}: no such group or section{nearest(group, GROUPS.keys() | SECTIONS.keys())}"])
    store_schema("train")
    with composing():
        run = compose_one("train", [*overrides, *([subject] if is_option else [])])
        if run.faults or run.node is None:
            raise ConfigError(run.faults)
        open_search_paths(run.node.hydra.runtime.config_sources)
        if group in SECTIONS:
            yield f"{group}: {first_sentence(SECTIONS[group].__doc__)}"
            yield from settings(fields_of(SECTIONS[group]), plain(run.node[group], group, []))
        elif is_option:
            yield from option(group, name, run.node)
        else:
            yield from options_of(group, run.node, [text for text in overrides if text.startswith("hydra.searchpath=")])


def main() -> None:
    parser = argparse.ArgumentParser(prog="app.describe", description=__doc__)
    parser.add_argument("subject", nargs="?", help="a group, a section, or group=option; nothing lists them all")
    parser.add_argument("overrides", nargs="*", help="hydra.searchpath=[file://DIR/conf] and other overrides")
    parser.add_argument("--config-dir", "-cd", help="a directory of config groups of your own")
    args = parser.parse_intermixed_args()
    given = [text for text in (args.subject, *args.overrides) if text is not None]
    subject = next((text for text in given if not text.partition("=")[0].count(".")), None)
    overrides = [text for text in given if text is not subject]
    with told("describe"):
        if args.config_dir is not None:
            overrides = with_config_dir(overrides, args.config_dir)
        for line in described(subject, overrides):
            print(line)


if __name__ == "__main__":
    main()
