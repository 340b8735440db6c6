"""Text in one language: the files `SPLIT.LANG[.gz]` (`train.txt`, `train.de.gz`) of a task's directories."""

from collections.abc import Iterator
from pathlib import Path

from app.data.corpus import find_file, find_texts
from app.errors import DataError
from app.tasks.corpora import Corpus, no_directory, some


def text_faults(corpora: list[Corpus], lang: str | None, split: str) -> Iterator[str]:
    """What is missing, and what there is instead. `split` itself need not be there: it is what is learnt from."""
    for path, _ in corpora:
        if not path.is_dir():
            yield no_directory(path)
            continue
        texts = find_texts(path)
        there, langs = sorted(set().union(*texts.values())), sorted(texts.get(split, ()))
        if not there:
            yield f"data={path}: has no text (SPLIT.LANG or SPLIT.LANG.gz); there are {some(path)}"
        elif lang is None and len(langs) > 1:
            yield f"lang=null: {path} has {', '.join(f'{split}.{each}' for each in langs)}; set lang to one of them"
        elif lang is not None and lang not in there:
            yield f"lang={lang}: {path} has no SPLIT.{lang}; its languages are {', '.join(there)}"


def language(corpora: list[Corpus], lang: str | None, split: str) -> str:
    """What is not given is guessed where `split` exists in one language alone, or without it, all splits do."""
    if lang is not None:
        return lang
    texts = [find_texts(path) for path, _ in corpora]
    every: set[str] = set().union(*(langs for each in texts for langs in each.values()))
    found = set().union(*(each.get(split, ()) for each in texts)) or every
    if len(found) != 1:
        there = ", ".join(sorted(found)) or "no text"
        raise DataError(f"task.lang=null: {split} has {there}; give task.data=DIRECTORY and task.lang=LANG")
    return found.pop()


def find_split(corpora: list[Corpus], split: str, lang: str) -> list[tuple[Path, float]]:
    """The file of a split in every directory that has it, with the directory's weight."""
    found = [(find_file(path, split, lang), weight) for path, weight in corpora]
    texts = [(path, weight) for path, weight in found if path is not None]
    if not texts:
        places = ", ".join(str(path) for path, _ in corpora)
        raise DataError(f"{places}: no {split}.{lang}; the splits are {', '.join(splits(corpora, lang))}")
    return texts


def splits(corpora: list[Corpus], lang: str) -> list[str]:
    """Every split that some directory has in this language."""
    return sorted({split for path, _ in corpora for split, langs in find_texts(path).items() if lang in langs})
