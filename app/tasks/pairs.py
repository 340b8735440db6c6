"""One pair of languages of a task: its sentences, its references, and what translates it."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from app.data.cache import cached, identity, key
from app.data.dataset import PairDataset
from app.data.frame import PLAIN, Frame
from app.data.large import LargeWeights, Weights
from app.data.pair_rows import EveryRow, PairRows, Tally
from app.data.windows import Span
from app.errors import DataError
from app.interfaces import Generator, Model
from app.search import Search
from app.tasks.alignments import ALIGN, Alignments, check_alignments, find_alignments
from app.tasks.corpora import Corpus, find_pairs
from app.tasks.generator import TextGenerator
from app.tasks.preparation import Prepared, prepare, rows_of
from app.tasks.text import Text

log = logging.getLogger(__name__)

TALLY = "tally.json"


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

    def dataset(self, split: str, cache_dir: Path, window: int) -> PairDataset:
        """The split's pairs that training can use; which are left out, and why, is counted and logged.

        Where an epoch has more than `window` pairs (0: no limit) the data set is a large one (`app.data.large`).
        """
        opened = self.opened(split, cache_dir)
        return self.used(opened, cache_dir, 0 < window < opened.size)

    def opened(self, split: str, cache_dir: Path) -> "Opened":
        """The split's encoded rows."""
        cfg, found = self.cfg, find_pairs(self.corpora, split, self.langs)
        files: list[tuple[Path, ...]] = [files for files, _ in found]
        texts: dict[str, Text | Alignments] = {"source": self.source, "target": self.target}
        if self.load_alignments and (aligned := find_alignments(self.corpora, files, split, self.name)):
            files = [(*pair, path) for pair, path in zip(files, aligned, strict=True)]
            texts["alignments"] = Alignments()
        prepared = prepare(files, texts, cfg.on_bad_line, cfg.num_workers, cache_dir)
        if len(prepared.stores) > 2:
            told = f"{split}.{self.name}.{ALIGN}"
            name = key(stores=[identity(store.path) for store in prepared.stores])
            cached(cache_dir / f"aligned-{name}", lambda _directory: check_alignments(prepared.stores, told))
        return Opened(f"{split} {self.name}" if self.is_one_of_several else split, prepared, [w for _, w in found])

    def used(self, opened: "Opened", cache_dir: Path, is_large: bool) -> PairDataset:
        """The data set of those rows that are not left out. Raises DataError where there is none."""
        cfg, frame, (name, prepared, weights) = self.cfg, self.frame, opened
        most = cfg.max_source_positions - frame.source_extra, cfg.max_target_positions - frame.target_extra
        stores = [store.unmapped() for store in prepared.stores] if is_large else prepared.stores
        rows = PairRows(stores[0], stores[1], *most)
        found = large(rows, prepared.rows, weights, cache_dir) if is_large else small(rows, prepared.rows, weights)
        reasons = (
            "with a bad line",
            "empty on one side",
            f"over max_source_positions={cfg.max_source_positions}",
            f"over max_target_positions={cfg.max_target_positions}",
        )
        left_out = dict(zip(reasons, (prepared.bad_lines, *found.left_out), strict=True))
        alignments = stores[2] if len(stores) > 2 else None
        dataset = PairDataset(rows.source, rows.target, found.rows, found.weights, left_out, frame, alignments)
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        log.info("%s: %d pairs; left out: %s", name, len(dataset), told or "none")
        if not len(dataset):
            raise DataError(f"{name}: no pair is left to use ({told or 'the files are empty'}); check task.data")
        return dataset

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


class Opened(NamedTuple):
    """Encoded rows of one split."""

    name: str  # of split and pair, for messages
    prepared: Prepared
    weights: list[float]  # of each directory that has the split

    @property
    def size(self) -> int:
        """Rows, or samples of an epoch where these are more."""
        rows = self.prepared.rows
        return max(sum(rows), int(np.dot(rows, self.weights)))


class Used(NamedTuple):
    """Which rows are used."""

    rows: NDArray[np.int64] | EveryRow
    weights: Weights
    left_out: list[int]  # see `PairRows.faults`


def small(rows: PairRows, counts: list[int], weights: list[float]) -> Used:
    """All rows are looked at. `counts` and `weights` are those of the directories, one after another."""
    faults = rows.faults(rows.source.lengths, rows.target.lengths)
    kept = np.flatnonzero(~np.logical_or.reduce(faults))
    return Used(kept, np.repeat(weights, counts)[kept], [int(fault.sum()) for fault in faults])


def large(rows: PairRows, counts: list[int], weights: list[float], cache_dir: Path) -> Used:
    """Rows are looked at when they are batched. What there is in all of them is counted once, and kept in the cache."""
    stores = [identity(store.path) for store in (rows.source, rows.target)]
    name = key(stores=stores, most=[rows.max_source, rows.max_target])

    def build(directory: Path) -> None:
        (directory / TALLY).write_text(json.dumps(asdict(rows.tally())))

    tally = Tally(**json.loads((cached(cache_dir / f"tally-{name}", build) / TALLY).read_text()))
    spans = map(Span, [0, *np.cumsum(counts).tolist()], counts, weights)
    return Used(EveryRow(tally), LargeWeights(tuple(spans), rows.used), tally.left_out)


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
