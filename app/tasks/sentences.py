"""What tasks of labelled sentences share: columns of text `SPLIT.input0`, `SPLIT.input1`, ... beside `SPLIT.label`."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from app.data.corpus import TextFile, find_file, find_texts
from app.data.sentences import Join, SentenceDataset, longest_of
from app.data.store import Store
from app.errors import CheckpointError, ConfigError, DataError
from app.interfaces import Model
from app.ranges import at_least, one_of, positive
from app.tasks.corpora import no_directory, some
from app.tasks.preparation import prepare
from app.tasks.text import LearningSettings, Text, learn
from app.tokenizers import Tokenizer

log = logging.getLogger(__name__)

LABEL = "label"
KEPT = "sentences.json"  # in a run directory
Labels = NDArray[np.int64] | NDArray[np.float32]


class Predicted(NamedTuple):
    """What models say of a row of texts."""

    label: str  # the class, or the number as text
    score: float  # probability of the class, or the number


@runtime_checkable
class Predicts(Protocol):
    """A task whose models answer in classes or numbers."""

    def predict(self, models: Sequence[Model], rows: Sequence[Sequence[str]]) -> list[Predicted]:
        """What the models, on average, say of each row, which holds as many texts as the training text has columns."""


@dataclass
class SentencesConfig:
    data: str | None  # directory of SPLIT.input0[.gz], SPLIT.input1, ... and SPLIT.label; null: only predict
    train_split: str  # the split that tokenizer, vocabulary and classes are learnt from
    num_classes: int  # how many there must be: classes, or candidates to choose from; 0: as many as the text has
    init_token: int | None  # id in front of the first text: 0 is bos, which models of sentences look at; null: none
    separator_token: int | None  # id in front of every further text: 2 is eos; null: none
    max_positions: int  # longest row, in pieces, all of these counted
    shorten_method: str  # what becomes of longer ones: none (left out) or truncate (their end is cut off)
    threshold: int  # pieces that are seen less often are unknown
    nwords: int  # most entries of the vocabulary, the four specials counted; 0: no limit
    num_workers: int  # processes that encode text; 0: one a core

    def check(self) -> Iterator[str]:
        yield from positive(self, "max_positions")
        yield from at_least(self, 0, "num_classes", "threshold", "nwords", "num_workers")
        yield from one_of(self, "shorten_method", "none", "truncate")
        for name in ("init_token", "separator_token"):
            if getattr(self, name) is not None:
                yield from at_least(self, 0, name)
        if self.data is None:
            return
        path = Path(self.data)
        if not path.is_dir():
            yield no_directory(path)
        elif not any(LABEL in names for names in find_texts(path).values()):
            yield f"data={path}: has no SPLIT.label beside SPLIT.input0; there are {some(path)}"

    def check_split(self, split: str) -> Iterator[str]:
        """Whether the text has this split; for a config that has passed `check`."""
        if self.data is None:
            yield "task.data=null: there is nothing to learn from; give task.data=DIRECTORY"
            return
        there = find_texts(Path(self.data))
        names = there.get(split, set())
        if not columns_of(names) or LABEL not in names:
            labelled = ", ".join(name for name, names in there.items() if LABEL in names)
            yield f"{self.data}: no {split}.input0 with {split}.label; the splits are {labelled}"

    def join(self, longest_first: int | None = None) -> Join:
        longest = self.max_positions if self.shorten_method == "truncate" else None
        return Join(self.init_token, self.separator_token, longest, longest_first)


def columns_of(names: set[str]) -> list[str]:
    """input0, input1, ... as far as they are there; input0 may be missing before input1."""
    numbered = takewhile(lambda name: name in names, (f"input{i}" for i in range(1, len(names) + 1)))
    return [*(["input0"] if "input0" in names else []), *numbered]


class Sentences:
    """The texts and labels of one task. What is prepared depends on content and settings only, and is kept in a cache.

    `facts` is what else a task learns from the training split and keeps with the run: plain values.
    """

    text: Text
    columns: list[str]

    def __init__(self, cfg: SentencesConfig, make_tokenizer: Callable[[], Tokenizer]):
        self.cfg, self._make_tokenizer = cfg, make_tokenizer
        self._cache_dir: Path | None = None
        self.facts: dict[str, Any] = {}

    def prepare(self, cache_dir: Path) -> None:
        """Learn what `load` has not read. Raises `ConfigError` for a token that the vocabulary does not have."""
        self._cache_dir, cfg = cache_dir, self.cfg
        if not hasattr(self, "columns"):
            self.columns = columns_of(find_texts(self._directory()).get(cfg.train_split, set()))
        if not hasattr(self, "text"):
            paths = [self._file(cfg.train_split, column) for column in self.columns]
            settings = LearningSettings(cfg.threshold, cfg.nwords, on_bad_line="error")
            self.text = learn(paths, self._make_tokenizer, settings, cfg.num_workers, cache_dir)
            log.info("vocabulary: %d pieces", len(self.text.vocabulary))
        size = len(self.text.vocabulary)
        for name in ("init_token", "separator_token"):
            if (getattr(cfg, name) or 0) >= size:
                raise ConfigError([f"task.{name}={getattr(cfg, name)}: the vocabulary has the entries 0 to {size - 1}"])

    def splits(self) -> list[str]:
        """Every split that has all columns and labels."""
        wanted = {*self.columns, LABEL}
        return [split for split, names in find_texts(self._directory()).items() if wanted <= names]

    def save(self, directory: Path) -> None:
        self.text.save(directory / "text")
        temporary = directory / f".{KEPT}.tmp"
        temporary.write_text(json.dumps({"columns": self.columns, **self.facts}), encoding="utf-8")
        temporary.replace(directory / KEPT)

    def load(self, directory: Path) -> None:
        """Read what `save` wrote, or the text alone where the run was one of another task."""
        self.text = Text.load(directory / "text", self._make_tokenizer)
        path = directory / KEPT
        if not path.is_file():
            return
        try:
            self.facts = json.loads(path.read_text(encoding="utf-8"))
            self.columns = self.facts.pop("columns")
        except (ValueError, KeyError, AttributeError):
            raise CheckpointError(f"{path}: is damaged; copy it again") from None

    def labels(self, split: str) -> list[str]:
        """The labels of a split, white space around them left out."""
        lines = TextFile(self._file(split, LABEL), "error")
        return [line.strip() for line in lines if line is not None]

    def stores(self, split: str) -> dict[str, Store]:
        """The encoded columns of a split."""
        if self._cache_dir is None:
            raise RuntimeError("prepare(cache_dir) comes before stores(split)")
        files = tuple(self._file(split, column) for column in self.columns)
        texts = dict.fromkeys(self.columns, self.text)
        prepared = prepare([files], texts, "error", self.cfg.num_workers, self._cache_dir)
        return dict(zip(self.columns, prepared.stores, strict=True))

    def dataset(
        self, split: str, candidates: tuple[tuple[Store, ...], ...], labels: Labels, join: Join
    ) -> SentenceDataset:
        """The samples that are not too long. Raises `DataError` where none is left, or a label or text is missing."""
        count = len(candidates[0][0])
        if count != len(labels):
            files = self._file(split, self.columns[0]), self._file(split, LABEL)
            raise DataError(f"{files[0]} has {count} lines and {files[1]} has {len(labels)}; give a label for each")
        fits = longest_of(candidates, join) <= self.cfg.max_positions
        left_out = {f"over max_positions={self.cfg.max_positions}": int((~fits).sum())}
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
        log.info("%s: %d samples; left out: %s", split, fits.sum(), reasons or "none")
        if not fits.any():
            raise DataError(f"{split}: no sample is left to use ({reasons or 'the files are empty'}); check task.data")
        return SentenceDataset(candidates, labels, join, np.flatnonzero(fits), left_out)

    def place(self, split: str, row: int) -> str:
        """Where the label of a row stands."""
        return f"{self._file(split, LABEL)}:{row + 1}"

    def _directory(self) -> Path:
        if self.cfg.data is None:
            raise DataError("task.data=null: this task has no text; give task.data=DIRECTORY")
        return Path(self.cfg.data)

    def _file(self, split: str, name: str) -> Path:
        path = find_file(self._directory(), split, name)
        if path is None:
            there = ", ".join(self.splits())
            raise DataError(f"{self._directory()}: no {split}.{name}; the splits are {there or 'none'}")
        return path
