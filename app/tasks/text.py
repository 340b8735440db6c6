"""One language of a task: lines <-> ids, and where both come from."""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.cache import cached, digest, key
from app.data.corpus import TextFile
from app.data.parallel import in_chunks, parallel_map
from app.data.vocabulary import SPECIALS, Vocabulary
from app.tasks.binarised import binarised, read_vocabulary, ready_tokenizer
from app.tokenizers import Tokenizer

log = logging.getLogger(__name__)

VERSION = 1  # of what is learnt from the same text and settings; part of every cache key
CHUNK = 25_000  # lines that are encoded together: what a process is started for
DICT = "dict.txt"


@dataclass(frozen=True)
class LearningSettings:
    """What a vocabulary depends on beside the text and the tokenizer."""

    threshold: int
    nwords: int
    on_bad_line: str
    symbols: tuple[str, ...] = ()  # entries of the vocabulary that no text has, such as `<mask>`


class Text:
    """A tokenizer and the vocabulary of its pieces."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary):
        self.tokenizer, self.vocabulary = tokenizer, vocabulary

    @classmethod
    def load(cls, directory: Path, make_tokenizer: Callable[[], Tokenizer]) -> "Text":
        tokenizer = make_tokenizer()
        vocabulary = Vocabulary.load(directory / DICT)
        tokenizer.load(directory)
        return cls(tokenizer, vocabulary)

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(directory)
        self.vocabulary.save(directory / DICT)

    def encode_lines(self, lines: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of all lines in turn, each with eos at its end; and how many belong to each."""
        rows = [self.vocabulary.encode(self.tokenizer.encode(line)) for line in lines]
        return np.concatenate(rows), np.array([len(row) for row in rows])

    def word_begins(self) -> NDArray[np.bool_]:
        """[V] whether a piece starts a word, as the four specials do. See `Tokenizer.begins_word`."""
        begins = self.tokenizer.begins_word
        return np.array([piece in SPECIALS or begins(piece) for piece in self.vocabulary.pieces])

    def fingerprint(self) -> str:
        """A name for everything that the ids of a line depend on."""
        with tempfile.TemporaryDirectory() as directory:
            self.save(Path(directory))
            files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(directory).iterdir()}
        return key(version=VERSION, tokenizer=identity(self.tokenizer), files=files)


def identity(tokenizer: Tokenizer) -> list[Any]:
    """The tokenizer's class and settings."""
    return [f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}", asdict(tokenizer.cfg)]


def learn(
    paths: list[Path],
    make_tokenizer: Callable[[], Tokenizer],
    settings: LearningSettings,
    num_workers: int,
    cache_dir: Path,
) -> Text:
    """The text of these files: found in the cache, or learnt from them and put there. Binarised data brings its own."""
    if binarised(paths):
        return Text(ready_tokenizer(make_tokenizer, paths[0]), read_vocabulary(paths, settings.symbols))
    tokenizer = make_tokenizer()
    name = key(
        version=VERSION,
        tokenizer=identity(tokenizer),
        sources=[digest(path, cache_dir) for path in tokenizer.sources()],
        text=[digest(path, cache_dir) for path in paths],
        settings=asdict(settings),
    )

    def build(directory: Path) -> None:
        log.info("learning tokenizer and vocabulary from %s", ", ".join(map(str, paths)))
        tokenizer.train(_lines(paths, settings.on_bad_line))
        counts: Counter[str] = Counter()
        chunks = in_chunks(_lines(paths, settings.on_bad_line), CHUNK)
        for chunk_counts in parallel_map(_PieceCounter(tokenizer), chunks, num_workers):
            counts.update(chunk_counts)
        vocabulary = Vocabulary.from_counts(counts, settings.threshold, settings.nwords, symbols=settings.symbols)
        Text(tokenizer, vocabulary).save(directory)

    return Text.load(cached(cache_dir / f"text-{name}", build), make_tokenizer)


def _lines(paths: list[Path], on_bad_line: str) -> Iterator[str]:
    return (line for line in chain.from_iterable(TextFile(path, on_bad_line) for path in paths) if line is not None)


@dataclass(frozen=True)
class _PieceCounter:
    """Sent to worker processes."""

    tokenizer: Tokenizer

    def __call__(self, lines: Iterable[str]) -> Counter[str]:
        return Counter(chain.from_iterable(map(self.tokenizer.encode, lines)))
