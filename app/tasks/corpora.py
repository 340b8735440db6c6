"""The directories of text that a task is given, with their weights; and the pairs of languages in them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from app.data.corpus import PairFiles, binarised_pair, find_pair, find_splits
from app.errors import CheckpointError, DataError
from app.ranges import at_least, one_of

LANGUAGES = "languages.json"


@dataclass
class CorporaConfig(ABC):
    """What tasks that learn from directories of text have in common."""

    data: Any  # directory of SPLIT.LANG[.gz] files, or a list of them or of {path, weight}; null: no text is read
    train_split: str  # the split that tokenizers and vocabularies are learnt from
    threshold: int  # pieces that are seen less often are unknown
    nwords: int  # most entries of a vocabulary, the four specials counted; 0: no limit
    on_bad_line: str  # a line that is no UTF-8 or has NUL: error, or skip it, and its pair (translated: U+FFFD for it)
    num_workers: int  # processes that encode text; 0: one a core

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "threshold", "nwords", "num_workers")
        yield from one_of(self, "on_bad_line", "error", "skip")
        if self.data is not None:
            try:
                yield from self.data_faults(read_corpora(self.data))
            except (TypeError, ValueError) as error:
                yield f"data={self.data}: {error}"

    @abstractmethod
    def data_faults(self, corpora: "list[Corpus]") -> Iterator[str]:
        """What these directories lack."""

    def check_split(self, split: str) -> Iterator[str]:
        """Whether the text has this split; for a config that has passed `check`."""
        if self.data is None:
            yield "task.data=null: there is nothing to learn from; give task.data=DIRECTORY"
            return
        try:
            self.find(read_corpora(self.data), split)
        except DataError as error:
            yield str(error)

    @abstractmethod
    def find(self, corpora: "list[Corpus]", split: str) -> Any:
        """The files of a split. Raises DataError where there are none."""


Config = TypeVar("Config", bound=Any)  # of a task: a dataclass with fields that name languages


class Corpus(NamedTuple):
    """A directory of `SPLIT.LANG[.gz]` files."""

    path: Path
    weight: float  # how often each of its pairs is seen in an epoch of training


def read_corpora(data: Any) -> list[Corpus]:
    """A directory, or a list of directories or of {path, weight}. TypeError or ValueError for what is no such thing."""
    corpora = []
    for entry in data if isinstance(data, list) else [data]:
        if isinstance(entry, str):
            corpora.append(Corpus(Path(entry), 1.0))
        elif isinstance(entry, dict) and "path" in entry and set(entry) <= {"path", "weight"}:
            corpora.append(Corpus(Path(entry["path"]), float(entry.get("weight", 1.0))))
        else:
            raise TypeError(f"{entry} is neither a directory nor {{path, weight}}")
    if any(corpus.weight < 0 for corpus in corpora) or not any(corpus.weight for corpus in corpora):
        raise ValueError("weights must be 0 or more, and one of them more than 0")
    return corpora


def faults(corpora: list[Corpus], source_lang: str | None, target_lang: str | None) -> Iterator[str]:
    """What is missing, and what there is instead."""
    for path, _ in corpora:
        if not path.is_dir():
            yield no_directory(path)
            continue
        langs = languages(path)
        if len(langs) < 2:
            yield f"data={path}: has no parallel text (SPLIT.LANG or SPLIT.LANG.gz); there are {some(path)}"
            continue
        if (source_lang is None or target_lang is None) and len(langs) > 2:
            yield f"source_lang={source_lang}: {path} has {', '.join(langs)}; set source_lang and target_lang"
        for name, lang in (("source_lang", source_lang), ("target_lang", target_lang)):
            if lang is not None and lang not in langs:
                yield f"{name}={lang}: {path} has no SPLIT.{lang}; its languages are {', '.join(langs)}"


def no_directory(path: Path) -> str:
    """A fault that says what there is instead."""
    parent = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f"data={path}: no such directory; in {parent} there are {some(parent)}"


def languages(directory: Path) -> list[str]:
    """The languages of the directory's parallel text, in alphabetical order; of binarised data, source and target."""
    return binarised_pair(directory) or sorted(set().union(*find_splits(directory).values()))


def some(directory: Path) -> str:
    """A few names of what is in a directory, for messages."""
    names = sorted(child.name for child in directory.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no files"


def language_pair(corpora: list[Corpus], source_lang: str | None, target_lang: str | None) -> tuple[str, str]:
    """What is not given is guessed where two languages exist: the source is then the first in alphabetical order."""
    for path, _ in corpora:
        if source_lang is not None and target_lang is not None:
            break
        left = iter([lang for lang in languages(path) if lang not in (source_lang, target_lang)])
        source_lang = source_lang or next(left, None)
        target_lang = target_lang or next(left, None)
    if source_lang is None or target_lang is None:
        places = ", ".join(str(path) for path, _ in corpora)
        fault = f"{places}: no text in two languages" if corpora else "task.data=null: this task has no text"
        raise DataError(f"{fault}; give task.data=DIRECTORY")
    return source_lang, target_lang


def save_languages(directory: Path, cfg: Any, *names: str) -> None:
    """Write these fields of a task's config: what was guessed once holds, whatever becomes of the text."""
    temporary = directory / f".{LANGUAGES}.tmp"
    temporary.write_text(json.dumps({name: getattr(cfg, name) for name in names}), encoding="utf-8")
    temporary.replace(directory / LANGUAGES)


def load_languages(directory: Path, cfg: Config) -> Config:
    """The config with the languages that `save_languages` wrote, unless it names others."""
    path = directory / LANGUAGES
    try:
        saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}  # older runs have none
    except ValueError:
        raise CheckpointError(f"{path}: is damaged; copy it again") from None
    saved = {name: lang for name, lang in saved.items() if hasattr(cfg, name)}  # another task's may have others
    agree = all(getattr(cfg, name) in (None, lang) for name, lang in saved.items())
    return replace(cfg, **saved) if agree else cfg


def find_pairs(corpora: list[Corpus], split: str, langs: tuple[str, str]) -> list[tuple[PairFiles, float]]:
    """The files of a split in every directory that has it, with the directory's weight.

    Text of this pair alone, `SPLIT.en-de.en`, comes before text that all pairs share, `SPLIT.en`.
    """
    names = [f"{split}.{'-'.join(langs)}", f"{split}.{'-'.join(langs[::-1])}", split]
    found = [
        (next((files for name in names if (files := find_pair(path, name, *langs)) is not None), None), weight)
        for path, weight in corpora
    ]
    pairs = [(files, weight) for files, weight in found if files is not None]
    if not pairs:
        there = sorted(
            {name for path, _ in corpora for name, has in find_splits(path).items() if has.issuperset(langs)}
        )
        places = ", ".join(str(path) for path, _ in corpora)
        raise DataError(f"{places}: no {split}.{langs[0]} and {split}.{langs[1]}; the splits are {', '.join(there)}")
    return pairs
