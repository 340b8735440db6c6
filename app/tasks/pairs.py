"""One pair of languages of a task: its sentences, its references, and what translates it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from app.data.dataset import PairDataset
from app.data.frame import PLAIN, Frame
from app.errors import DataError
from app.interfaces import Generator, Model
from app.search import Search
from app.tasks.alignments import ALIGN, Alignments, check_alignments, find_alignments
from app.tasks.corpora import Corpus, find_pairs
from app.tasks.generator import TextGenerator
from app.tasks.preparation import Prepared, prepare, rows_of
from app.tasks.text import Text

log = logging.getLogger(__name__)


class PairSettings(Protocol):
    """What a pair takes from its task's config."""

    max_source_positions: int
    max_target_positions: int
    on_bad_line: str
    num_workers: int


@runtime_checkable
class HasPairs(Protocol):
    """A model that is another one for each pair of languages (`app.models.multilingual_transformer`)."""

    def of_pair(self, pair: str) -> Model: ...


def of_pair(model: Model, pair: str) -> Model:
    """What a model is for a pair: one of its own, or itself, where it tells languages by their symbols."""
    return model.of_pair(pair) if isinstance(model, HasPairs) else model


@dataclass(frozen=True)
class LanguagePair:
    """Everything that concerns one direction of translation (`app.interfaces.Direction`)."""

    cfg: PairSettings
    corpora: list[Corpus]
    langs: tuple[str, str]
    source: Text
    target: Text
    frame: Frame = PLAIN
    load_alignments: bool = False
    is_one_of_several: bool = False

    @property
    def name(self) -> str:
        """Such as de-en."""
        return "-".join(self.langs)

    def dataset(self, split: str, cache_dir: Path) -> PairDataset:
        """The split's pairs that training can use; which are left out, and why, is counted and logged."""
        cfg, found = self.cfg, find_pairs(self.corpora, split, self.langs)
        weights = [weight for _, weight in found]
        files: list[tuple[Path, ...]] = [files for files, _ in found]
        texts: dict[str, Text | Alignments] = {"source": self.source, "target": self.target}
        if self.load_alignments and (aligned := find_alignments(self.corpora, files, split, self.name)):
            files = [(*pair, path) for pair, path in zip(files, aligned, strict=True)]
            texts["alignments"] = Alignments()
        prepared = prepare(files, texts, cfg.on_bad_line, cfg.num_workers, cache_dir)
        if len(prepared.stores) > 2:
            check_alignments(prepared.stores, f"{split}.{self.name}.{ALIGN}")
        dataset = self._kept(prepared, weights)
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.left_out.items() if count)
        name = f"{split} {self.name}" if self.is_one_of_several else split
        log.info("%s: %d pairs; left out: %s", name, len(dataset), reasons or "none")
        if not len(dataset):
            raise DataError(f"{name}: no pair is left to use ({reasons or 'the files are empty'}); check task.data")
        return dataset

    def _kept(self, prepared: Prepared, weights: list[float]) -> PairDataset:
        stores, cfg, frame = prepared.stores, self.cfg, self.frame
        source, target = stores[0].lengths, stores[1].lengths
        empty = (source == 1) | (target == 1)  # eos alone
        long_source = ~empty & (source + frame.source_extra > cfg.max_source_positions)
        long_target = ~empty & ~long_source & (target + frame.target_extra > cfg.max_target_positions)
        left_out = {
            "with a bad line": prepared.bad_lines,
            "empty on one side": int(empty.sum()),
            f"over max_source_positions={cfg.max_source_positions}": int(long_source.sum()),
            f"over max_target_positions={cfg.max_target_positions}": int(long_target.sum()),
        }
        rows = np.flatnonzero(~(empty | long_source | long_target))
        alignments = stores[2] if len(stores) > 2 else None
        each = np.repeat(weights, prepared.rows)[rows]
        return PairDataset(stores[0], stores[1], rows, each, left_out, frame, alignments)

    def build_generator(self, models: list[Model], search: Search, max_tokens: int) -> Generator:
        """Lines of the source language are translated, `max_tokens` source tokens at a time."""
        own = [of_pair(model, self.name) for model in models]
        longest = self.cfg.max_source_positions
        return TextGenerator(own, search, self.source, self.target, longest, max_tokens, frame=self.frame)

    def references(self, split: str) -> tuple[list[str], list[str]]:
        """See `read_references`."""
        return read_references(
            self.corpora, self.langs, split, self.cfg.on_bad_line, lambda: (self.source, self.target)
        )


def read_references(
    corpora: list[Corpus],
    langs: tuple[str, str],
    split: str,
    on_bad_line: str,
    texts: Callable[[], tuple[Text, Text]],
) -> tuple[list[str], list[str]]:
    """Source and target lines, one for each line of the files: none is ever left out here.

    `texts` are asked for where the files hold ids, and not where they hold text.
    """
    policy = "error" if on_bad_line == "error" else "replace"
    lines: tuple[list[str], list[str]] = ([], [])
    for files, _ in find_pairs(corpora, split, langs):
        for pair in rows_of(files, texts, policy):
            for side, line in zip(lines, pair or ()):
                side.append(line)
    return lines
