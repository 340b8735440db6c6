"""A line of `fairseq-hydra-train`: its file and overrides as the options that flags of `fairseq-train` give."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from app.errors import ConfigError

NAME = "fairseq-hydra-train"
GROUPS = {"model": "arch"} | {name: name for name in ("task", "criterion", "optimizer", "lr_scheduler", "bpe")}
NOT_OPTIONS = {"hydra", "defaults", "tokenizer", "generation", "eval_lm", "interactive", "common_eval"}  # sections


def hydra_options(words: Sequence[str]) -> dict[str, Any]:
    """Options by the names of flags. Raises ConfigError for words that Hydra does not take, and for sweeps."""
    parser = argparse.ArgumentParser(prog=NAME, add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", "-cd", "--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("overrides", nargs="*")
    try:
        args, unknown = parser.parse_known_intermixed_args(list(words))
        overrides = OverridesParser.create().parse_overrides(args.overrides)
    except (argparse.ArgumentError, OverrideParseException) as error:
        raise ConfigError([f"{NAME}: {str(error).splitlines()[0]}"]) from None
    if unknown:
        raise ConfigError([f"{unknown[0]}: is left to our own command; {NAME} is translated as one run"])
    cfg = OmegaConf.create() if args.config_name is None else loaded(args.config_dir, args.config_name)
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError([f"{override.input_line}: is a sweep; translate one point, and sweep with our own -m"])
        if not override.is_delete():
            key = f"{override.key_or_group}._name" if override.key_or_group in GROUPS else override.key_or_group
            OmegaConf.update(cfg, key, override.value(), force_add=True)
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError([f"{NAME}: {str(error).splitlines()[0]}; write the value itself"]) from None
    options = dict(options_of(values))
    if "task" not in options or "arch" not in options:
        raise ConfigError([f"{NAME}: says no task or model; give task=NAME model=NAME, or the file that does"])
    return options


def loaded(directory: str | None, name: str) -> DictConfig:
    """The file of `--config-dir` and `--config-name`, with the options of groups that its defaults choose."""
    path = Path(directory or ".") / f"{name.removesuffix('.yaml')}.yaml"
    try:
        cfg = OmegaConf.load(path)
    except (OSError, YAMLError) as error:
        fault = error.strerror if isinstance(error, OSError) else "is no YAML"
        raise ConfigError([f"{path}: {fault}; give the file with --config-dir and --config-name"]) from None
    if not isinstance(cfg, DictConfig):
        raise ConfigError([f"{path}: holds no sections, such as task and model"])
    for entry in cfg.get("defaults", []):
        for group, option in entry.items() if isinstance(entry, DictConfig) else ():
            section = str(group).split()[-1].strip("/").partition("@")[0]
            if section in GROUPS and isinstance(option, str):
                cfg[section] = {**(cfg.get(section) or {}), "_name": option}
    return cfg


def options_of(sections: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`{task: {_name: translation}, dataset: {max_tokens: 5}}` -> task translation, max_tokens 5."""
    for section, content in sections.items():
        if section not in NOT_OPTIONS and isinstance(content, Mapping):
            if section in GROUPS and isinstance(content.get("_name"), str):
                yield GROUPS[section], content["_name"].rpartition("/")[2]
            yield from leaves({name: value for name, value in content.items() if name != "_name"})


def leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """`{encoder: {layers: 6}}`, as newer models have it, -> encoder_layers 6."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{before}{name}_")
        else:
            yield f"{before}{name}", value
