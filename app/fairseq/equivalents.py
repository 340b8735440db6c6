"""Options of fairseq's, from a command line or a checkpoint, become overrides of our configuration."""

import inspect
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from app.check import KINDS
from app.compose import CONF, compose_one, composing
from app.errors import ConfigError
from app.fairseq.features import FEATURES
from app.fairseq.flags import Flag
from app.fairseq.values import as_text, fitted, is_off, numbers_of, table
from app.plugins import resolve, schema_of
from app.schema import nearest

GROUPS = ("task", "criterion", "optimizer", "lr_scheduler", "model")
OURS = {  # fields that fairseq has no flag for, or has under another name with another meaning
    *("data", "lang", "train_split", "joined_dictionary", "threshold", "nwords", "on_bad_line", "num_workers"),
    *("norm_fn", "rotary_pos", "encoder_kv_heads", "decoder_kv_heads", "context_window", "betas", "eps", "rho", "lr"),
    *("mode", "ignore_pad_in_tails", "fused", "bias_correction", "max_update", "lr_decay_period"),
}
TASKS = {"translation_from_pretrained_bart": "translation"}  # what are options of another task here
BPE = {"sentencepiece": "sentencepiece", "subword_nmt": "subword_bpe", "characters": "char"}
Fields = Mapping[str, Mapping[str, Any]]  # group -> field -> type
Overrides = Iterator[tuple[str, Any]]


class NoEquivalentError(Exception):
    """Nothing takes an option's place; the message says why."""


@dataclass
class Equivalent:
    """What some options are here."""

    overrides: dict[str, Any] = field(default_factory=dict)  # key -> value
    left: dict[str, str] = field(default_factory=dict)  # option -> why nothing takes its place
    stopping: set[str] = field(default_factory=set)  # of these, those that a run is another without
    unknown: set[str] = field(default_factory=set)  # options that no table has

    def words(self) -> list[str]:
        """The overrides as a command line has them, choices of groups first."""
        order = sorted(self.overrides, key=lambda key: "." in key)
        return [f"{key}={as_text(self.overrides[key])}" for key in order]


def equivalent(options: Mapping[str, Any], flags: Sequence[Flag], fields: Fields) -> Equivalent:
    """Rows of `flags` first, then fields of the chosen plug-ins, then what is known to be missing here."""
    found = Equivalent()
    known, features = by_name(flags), by_name(FEATURES)
    for name, value in options.items():
        group = next((group for group in fields if name in fields[group] and name not in OURS), None)
        try:
            if name in known:
                overrides = dict(taken(known[name], name, value))
                check_fields(overrides, fields)
                found.overrides.update(overrides)
            elif group is not None:
                if value not in (None, -1, -1.0, "-1"):  # what fairseq calls its default
                    found.overrides[f"{group}.{name}"] = fitted(value, fields[group][name])
            elif name in features:
                leave(features[name], value)
            elif not is_off(value):
                found.unknown.add(name)
        except NoEquivalentError as error:
            found.left[name] = str(error)
            if (known.get(name) or features.get(name) or Flag(name, stops=True)).stops:
                found.stopping.add(name)
        except (ValueError, TypeError) as error:
            raise ConfigError([f"--{name.replace('_', '-')} {reprlib.repr(value)}: {error}"]) from None
    if "callbacks" not in found.overrides:  # a checkpoint says how an average would be made, also where there is none
        found.overrides = {key: each for key, each in found.overrides.items() if not key.startswith("callbacks.")}
    return found


def check_fields(overrides: Mapping[str, Any], fields: Fields) -> None:
    """Raises NoEquivalentError for a field that the chosen plug-in does not have."""
    for key in overrides:
        group, _, name = key.partition(".")
        if name and group in fields and name not in fields[group]:
            raise NoEquivalentError(f"the chosen {group} has no {name}")


def by_name(flags: Iterable[Flag]) -> dict[str, Flag]:
    return {name: flag for flag in reversed(list(flags)) for name in flag.names.split()}


def taken(flag: Flag, name: str, value: Any) -> Overrides:
    """The overrides that a row says, or its reason for none."""
    if name in SPECIAL and flag.key:
        yield from SPECIAL[name](value)
    elif not flag.key:
        leave(flag, value)
    elif "=" in flag.key:
        if not is_off(value):
            key, _, fixed = flag.key.partition("=")
            yield key, {"true": True, "false": False}.get(fixed, fixed)
    elif value not in (None, -1, -1.0, "-1"):
        yield flag.key, flag.read(value)


def leave(flag: Flag, value: Any) -> None:
    if not is_off(value) and value not in flag.off:
        raise NoEquivalentError(flag.note)


def choice(group: str, value: Any) -> Overrides:
    """An option of a group, which must be there."""
    if value is None:
        return
    path = CONF / group / f"{value}.yaml"
    if not re.fullmatch(r"\w+", str(value)) or not path.is_file():
        there = [each.stem for each in path.parent.glob("*.yaml")]
        raise ConfigError([f"{group}={value}: is not here{nearest(str(value), there)}"])
    yield group, str(value)


def rates(value: Any) -> Overrides:
    """One rate is the optimizer's; several are those of the schedule `fixed`, one an epoch."""
    found = numbers_of(value)
    yield "optimizer.lr", found[0]
    if len(found) > 1:
        yield "lr_scheduler.lr", found


def search_fields(value: Any) -> Overrides:
    for name, each in table(value).items():
        yield f"search.{name}", each


def tokenizer(value: Any) -> Overrides:
    if value is None:
        return
    if value not in BPE:
        raise NoEquivalentError(f"{value} is not here; task.data keeps its pieces with tokenizer=pretokenized")
    yield "tokenizer", BPE[value]


def start(value: Any) -> Overrides:
    """A checkpoint other than the run's own, which must be imported before it can be started from."""
    if value not in (None, "", "checkpoint_last.pt"):
        yield "checkpoint.finetune_from", imported(str(value))


def imported(path: str) -> str:
    """Where the import of a `.pt` file is put by the lines that are printed."""
    return path.removesuffix(".pt")


def models(value: Any) -> Overrides:
    paths = [imported(path) for path in str(value).split(":")]
    yield "checkpoint", paths[0] if len(paths) == 1 else paths


def scorer(value: Any) -> Overrides:
    if value in ("bleu", "sacrebleu", None):
        return
    if not (CONF / "scorer" / f"{value}.yaml").is_file():
        raise NoEquivalentError(f"{value} is not here")
    yield "scorer", str(value)


def project(value: Any) -> Overrides:
    if value:
        yield from (("tracker", "wandb"), ("tracker.wandb.project", str(value)))


SPECIAL: dict[str, Callable[[Any], Iterable[tuple[str, Any]]]] = {
    "arch": partial(choice, "model"),
    "a": partial(choice, "model"),
    **{group: partial(choice, group) for group in GROUPS[:-1]},
    "task": lambda value: choice("task", TASKS.get(value, value)),
    "lr": rates,
    "learning_rate": rates,
    "eval_bleu_args": search_fields,
    "bpe": tokenizer,
    "restore_file": start,
    "finetune_from_model": start,
    "path": models,
    "lm_path": lambda value: (("search.lm_path", imported(str(value))),) if value else (),
    "scoring": scorer,
    "wandb_project": project,
    "tensorboard_logdir": lambda value: (("tracker", "tensorboard"),) if value else (),
    "sampling_topp": lambda value: (("search.sampling_topp", max(0.0, float(value))),),
}


def chosen(choices: Mapping[str, Any]) -> tuple[DictConfig, dict[str, dict[str, Any]]]:
    """What `app.train` is configured as with these options of groups, and the fields of each group's class."""
    return composed(tuple(sorted(choices.items())))


@cache
def composed(choices: tuple[tuple[str, Any], ...]) -> tuple[DictConfig, dict[str, dict[str, Any]]]:
    with composing():
        run = compose_one("train", [f"{group}={option}" for group, option in choices])
    if run.node is None or run.faults:
        raise ConfigError(run.faults)
    return run.node, {group: fields_of(run.node[group], group) for group in GROUPS}


def fields_of(node: Any, group: str) -> dict[str, Any]:
    """Names and types of the fields of the class that a node names."""
    target = resolve(str(node["_target_"]), KINDS[group], group)
    if "cfg" in inspect.signature(target).parameters:
        return get_type_hints(schema_of(target, group))
    values = OmegaConf.to_container(node)
    assert isinstance(values, dict)
    return {str(name): list[float] if isinstance(value, list) else type(value) for name, value in values.items()}
