"""A command line of fairseq's as one of ours, flag by flag, with what has no equivalent named."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from app.compose import CONF
from app.errors import ConfigError
from app.fairseq.equivalents import Equivalent, Fields, by_name, chosen, equivalent
from app.fairseq.features import FEATURES
from app.fairseq.flags import COMMANDS, Flag
from app.fairseq.hydra_commands import NAME as HYDRA
from app.fairseq.hydra_commands import hydra_options
from app.fairseq.values import is_off
from app.schema import nearest

SCRIPTS = {f"{name.removeprefix('fairseq-').replace('-', '_')}.py": name for name in (*COMMANDS, HYDRA)}
CHOICES = {"arch": "model", "a": "model"} | {name: name for name in ("task", "criterion", "optimizer", "lr_scheduler")}
PLAIN = re.compile(r"[\w@%+=:,./$-]+")  # words that a shell takes as they are, but for variables
NUMBER = re.compile(r"-\d")
BOOLEAN = {"true", "false", "1", "0"}
UNGIVEN: dict[str, Any] = {"task": "translation", "criterion": "cross_entropy", "lr_scheduler": "fixed"}
UNGIVEN_VALUES: dict[str, Any] = {  # of options that fairseq has another value for than our YAML files, if not given
    "optimizer.lr": 0.25,
    "optimizer.weight_decay": 0.0,
    "criterion.label_smoothing": 0.0,
    "criterion.rdrop_alpha": 0.0,
    "lr_scheduler.phase_ratio": None,
}
UNGIVEN_OF_ADAM = {"optimizer.betas": [0.9, 0.999]}
REFINING_TASK, REFINEMENT = "translation_lev", "iterative_refinement"
NO_LIMIT = 1_000_000  # tokens of a batch that is bounded by its sentences alone


@dataclass
class Translated:
    """A line of ours, and what it leaves out."""

    module: str
    found: Equivalent
    first: list[str]  # what must be done before

    @property
    def line(self) -> str:
        words = self.found.words()
        return " ".join(
            ["python -m", f"app.{self.module}", *(w if PLAIN.fullmatch(w) else shlex.quote(w) for w in words)]
        )

    def notes(self) -> list[str]:
        left = [f"--{name.replace('_', '-')}: {why}" for name, why in self.found.left.items()]
        return [*left, *(f"first: {line}" for line in self.first)]


def translate(line: str) -> Translated:
    """Raises ConfigError for a command or a flag that fairseq does not have, with the nearest that it has."""
    words = first_command(line)
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("python", "python3", "torchrun")):
        words.pop(0)
    name = SCRIPTS.get(Path(words[0]).name, words[0]) if words else ""
    if name == HYDRA:
        return translated_hydra(hydra_options(words[1:]))
    if name not in COMMANDS:
        raise ConfigError([f"{name or 'nothing'}: is no command of fairseq's{nearest(name, [*COMMANDS, HYDRA])}"])
    module, flags = COMMANDS[name]
    fields = plugin_fields(choices(words)) if module == "train" else {}
    options = parse(name, words[1:], flags, fields)
    first = imports(options)
    return Translated(*FINISH[module](name, options, flags, fields), first)


def first_command(line: str) -> list[str]:
    """The words that a shell would run first; what stands behind `;`, `|` or `>` is left."""
    shell = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars=";|<>&")
    shell.whitespace_split = True
    try:
        return list(takewhile(lambda word: not set(word) <= set(";|<>&"), shell))
    except ValueError as error:
        raise ConfigError([f"the command cannot be read as a shell reads it: {error}"]) from None


def translated_hydra(options: dict[str, Any]) -> Translated:
    """A line of `fairseq-hydra-train`, whose options are those of `fairseq-train`."""
    _, flags = COMMANDS["fairseq-train"]
    fields = plugin_fields({name: options[name] for name in CHOICES if name in options})
    module, found = finish_train(HYDRA, options, flags, fields)
    if found.unknown:
        known = {*by_name(FEATURES), *by_name(flags), *(name for group in fields.values() for name in group)}
        raise ConfigError(
            [f"{name}: is no option of fairseq's{nearest(name, known)}" for name in sorted(found.unknown)]
        )
    return Translated(module, found, imports(options))


def choices(words: Sequence[str]) -> dict[str, str]:
    """The options of groups that a line of `fairseq-train` names."""
    found = {}
    for word, following in zip(words, [*words[1:], ""]):
        flag, _, value = word.lstrip("-").partition("=")
        if word.startswith("-") and flag.replace("-", "_") in CHOICES:
            found[flag.replace("-", "_")] = value or following
    return found


def plugin_fields(choices: Mapping[str, str]) -> Fields:
    """The fields of the chosen plug-ins, which are flags as well."""
    return chosen(equivalent({**UNGIVEN, **choices}, COMMANDS["fairseq-train"][1], {}).overrides)[1]


def parse(command: str, words: Sequence[str], flags: Sequence[Flag], fields: Fields) -> dict[str, Any]:
    """Options by name: text for those with a value, True for switches."""
    known = {**by_name(FEATURES), **by_name(flags)} if fields else by_name(flags)
    hints = {name: hint for group in fields.values() for name, hint in group.items()}
    places = [flag.name for flag in flags if flag.positional]
    options: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or NUMBER.match(word):
            if not places:
                raise ConfigError([f"{word}: {command} takes no such argument; a flag before it takes none either"])
            options[places.pop(0)] = word
            continue
        flag, is_set, value = word.lstrip("-").partition("=")
        name = flag.replace("-", "_")
        if name in known and not (name in hints and known[name] in FEATURES):
            count = known[name].words
        elif name in hints:
            takes = hints[name] is not bool or (bool(rest) and rest[0].lower() in BOOLEAN)
            count = "1" if takes else "0"
        else:
            names = [each.replace("_", "-") for each in {*known, *hints} if len(each) > 1]
            raise ConfigError([f"{word}: is no flag of {command}{nearest(flag, names, '')}"])
        options[name] = value if is_set else following(word, rest, count)
    return options


def following(word: str, rest: list[str], count: str) -> Any:
    """What stands after a flag, taken from `rest`."""
    stops = not rest or (rest[0].startswith("-") and len(rest[0]) > 1 and not NUMBER.match(rest[0]))
    if count == "0" or (count == "?" and stops):
        return True
    if stops:
        raise ConfigError([f"{word}: needs a value"])
    value = rest.pop(0)
    while count == "+" and rest and not rest[0].startswith("-"):
        value = f"{value} {rest.pop(0)}"
    return value


def imports(options: Mapping[str, Any]) -> list[str]:
    """The lines that import the checkpoints which an option names."""
    given = [str(options.get(name) or "") for name in ("path", "lm_path", "restore_file", "finetune_from_model")]
    paths = [
        path for text in given for path in text.split(":") if path.endswith(".pt") and path != "checkpoint_last.pt"
    ]
    data = str(options.get("data") or "DATA_BIN").split(":")[0]
    make = "python -m app.import_fairseq"
    return [f"{make} checkpoint={path} data={data} output={path.removesuffix('.pt')}" for path in paths]


def finish_train(name: str, options: dict[str, Any], flags: Sequence[Flag], fields: Fields) -> tuple[str, Equivalent]:
    """fairseq's values of what was not given, where ours are others; and its data as it is."""
    found = equivalent({**UNGIVEN, **options}, flags, fields)
    over = found.overrides
    values = UNGIVEN_VALUES | (UNGIVEN_OF_ADAM if over.get("optimizer") == "adam" else {})
    for key, value in values.items():
        group, _, option = key.partition(".")
        if option in fields[group]:
            over.setdefault(key, value)
    if "trainer.max_epoch" in over:
        over.setdefault("trainer.max_update", 0)
    if "batching.max_sentences" in over:
        over.setdefault("batching.max_tokens", NO_LIMIT)
    if "batching.max_tokens" in over:
        over.setdefault("batching.max_tokens_valid", over["batching.max_tokens"])
    over.setdefault("precision", "fp32")
    over.setdefault("tokenizer", "pretokenized")
    if over["task"] == REFINING_TASK:
        refine(found)
        over.setdefault("trainer.decode_valid", False)
    elif "trainer.decode_valid" in over:
        for key, value in {"search.max_len_a": 0.0, "search.max_len_b": 200}.items():
            over.setdefault(key, value)
    else:
        over["trainer.decode_valid"] = False
    if isinstance(over.get("task.data"), str) and ":" in over["task.data"]:
        over["task.data"] = over["task.data"].split(":")
    if "checkpoint.finetune_from" in over and not options.get("finetune_from_model"):
        for part in ("optimizer", "lr_scheduler", "meters", "dataloader"):
            over[f"checkpoint.reset_{part}"] = not is_off(options.get(f"reset_{part}"))
    if "joined_dictionary" in fields_with_ours(over):
        over["task.joined_dictionary"] = shares_all(over)
    return "train", found


def refine(found: Equivalent) -> None:
    """Choose the search of models that refine drafts, and leave what it does not have."""
    over, there = found.overrides, OmegaConf.load(CONF / "search" / f"{REFINEMENT}.yaml")
    over["search"] = REFINEMENT
    for name in [key.partition(".")[2] for key in over if key.startswith("search.")]:
        if name not in there:
            del over[f"search.{name}"]
            found.left[name] = f"search={REFINEMENT} does not have it"


def fields_with_ours(overrides: Mapping[str, Any]) -> set[str]:
    return set(chosen({"task": overrides["task"]})[1]["task"])


def shares_all(overrides: Mapping[str, Any]) -> bool:
    """Whether source and target share a dictionary, because all embeddings are shared."""
    if "model.share_all_embeddings" in overrides:
        return bool(overrides["model.share_all_embeddings"])
    model = chosen({"model": overrides["model"]})[0].model if "model" in overrides else {}
    return bool(model.get("share_all_embeddings", False))


def finish_generate(
    name: str, options: dict[str, Any], flags: Sequence[Flag], fields: Fields
) -> tuple[str, Equivalent]:
    if options.get("constraints") is True:
        options["constraints"] = "ordered"
    found = equivalent(options, flags, fields)
    for key, search in (
        ("search.diverse_beam_groups", "diverse_beam"),
        ("search.diversity_rate", "diverse_siblings"),
        ("search.constraints", "lexically_constrained"),
    ):
        if key in found.overrides:
            found.overrides["search"] = search
    if options.get("task") == REFINING_TASK or any(key.startswith("search.iter_decode") for key in found.overrides):
        refine(found)
    if found.overrides.get("search") == "sampling":
        found.overrides.setdefault("search.sampling_topp", 0.0)
        found.overrides.setdefault("search.beam", 5)
    if name == "fairseq-interactive":
        found.overrides["output"] = "fairseq"
        if found.overrides.get("input", "-") == "-":
            found.overrides = {k: v for k, v in found.overrides.items() if k not in ("input", "buffer_size")}
            return "interactive", found
    return "generate", found


def finish_evaluate(
    name: str, options: dict[str, Any], flags: Sequence[Flag], fields: Fields
) -> tuple[str, Equivalent]:
    found = equivalent(options, flags, fields)
    found.overrides.setdefault("split", "valid" if name == "fairseq-validate" else "test")
    return "evaluate", found


def finish_score(name: str, options: dict[str, Any], flags: Sequence[Flag], fields: Fields) -> tuple[str, Equivalent]:
    found = equivalent(options, flags, fields)
    found.overrides.setdefault("sys", "-")
    return "score", found


def finish_preprocess(
    name: str, options: dict[str, Any], flags: Sequence[Flag], fields: Fields
) -> tuple[str, Equivalent]:
    """fairseq's prefixes are splits of one directory here, and keep their names."""
    prefixes = {kind: str(options.pop(kind)) for kind in ("trainpref", "validpref", "testpref") if kind in options}
    found = equivalent(options, flags, fields)
    found.overrides |= {"format": "fairseq", "tokenizer": "pretokenized"}
    found.overrides.setdefault("output", "data-bin")
    if "task" not in found.overrides:
        found.overrides.setdefault("task.joined_dictionary", False)
    if "trainpref" not in prefixes:
        raise ConfigError(["fairseq-preprocess: needs --trainpref, the text that dictionaries are learnt from"])
    directory, splits = Path(prefixes["trainpref"]).parent, []
    for kind, names in prefixes.items():
        for path in map(Path, names.split(",")):
            split, lang = path.name, ""
            if "task" in found.overrides:
                split, _, lang = path.name.rpartition(".")
                found.overrides["task.lang"] = lang
            if path.parent != directory:
                found.left[kind] = f"{path} is in another directory than --trainpref; put all splits into one"
                continue
            splits.append(split)
    if splits[0] != "train":
        found.overrides["task.train_split"] = splits[0]
    found.overrides |= {"task.data": str(directory), "splits": splits}
    return "preprocess", found


Finish = Callable[[str, dict[str, Any], Sequence[Flag], Fields], tuple[str, Equivalent]]
FINISH: dict[str, Finish] = {
    "train": finish_train,
    "generate": finish_generate,
    "interactive": finish_generate,
    "evaluate": finish_evaluate,
    "score": finish_score,
    "preprocess": finish_preprocess,
}


def as_markdown() -> str:
    """The tables of docs/from_fairseq.md."""
    titles: dict[str, list[str]] = {}
    for name, (module, flags) in COMMANDS.items():
        if name != "fairseq-validate":
            named = "fairseq-eval-lm, fairseq-validate" if name == "fairseq-eval-lm" else name
            titles[f"### {named}: `app.{module}`"] = [row(flag) for flag in flags]
    titles["### Options of models that are not here"] = [row(flag) for flag in FEATURES]
    head = ["| fairseq | here | |", "|---|---|---|"]
    return "\n\n".join("\n".join([title, "", *head, *rows]) for title, rows in titles.items()) + "\n"


def row(flag: Flag) -> str:
    dashed = [f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}" for name in flag.names.split()]
    names = "*data*" if flag.positional else ", ".join(f"`{name}`" for name in dashed)
    key = f"`{flag.key}`" if flag.key else ""
    return f"| {names} | {key} | {flag.note} |"
