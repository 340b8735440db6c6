"""Labelled sentences out of parallel text, for models that classify: real sentences, and labels that cost nothing."""

import random
from collections.abc import Iterator
from pathlib import Path

from app.data.corpus import TextFile, find_file

SPLITS = ("train", "valid")


def languages(data: str, to: Path) -> str:
    """`input0` and `label`: a sentence, and which of two languages it is in; each pair gives one of its sides."""
    for split in SPLITS:
        pairs = list(zip(lines(data, split, "en"), lines(data, split, "de"), strict=True))
        rng = random.Random(split)
        chosen = [rng.choice([("en", english), ("de", german)]) for english, german in pairs]
        write(to, split, label=[lang for lang, _ in chosen], input0=[line for _, line in chosen])
    return str(to)


def word_order(data: str, to: Path) -> str:
    """`input1`, `input2`, `label`: a German sentence and its words in random order; which of them is the sentence."""
    for split in SPLITS:
        rng = random.Random(split)
        rows = []
        for line in lines(data, split, "de"):
            words = line.split()
            shuffled = " ".join(rng.sample(words, len(words)))
            if shuffled != " ".join(words):
                right = rng.randrange(2)
                rows.append((line, shuffled, right) if right == 0 else (shuffled, line, right))
        first, second, label = zip(*rows, strict=True)
        write(to, split, input1=list(first), input2=list(second), label=[str(number) for number in label])
    return str(to)


def lines(data: str, split: str, lang: str) -> Iterator[str]:
    """The lines of one file, none of which may be bad."""
    path = find_file(Path(data), split, lang)
    assert path is not None, f"{data}: no {split}.{lang}"
    return (line for line in TextFile(path, "error") if line is not None)


def write(directory: Path, split: str, **columns: list[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in columns.items():
        (directory / f"{split}.{name}").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
