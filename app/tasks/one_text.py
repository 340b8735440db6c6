"""What tasks of one text share: the files are found, learnt from, encoded, and cut into blocks."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data.store import Store
from app.data.token_blocks import BREAK_MODES, Ids, slices_of_rows
from app.errors import DataError
from app.ranges import one_of, positive
from app.tasks.corpora import CorporaConfig, Corpus, load_languages, read_corpora, save_languages
from app.tasks.monolingual import find_split, language, splits, text_faults
from app.tasks.preparation import prepare
from app.tasks.text import LearningSettings, Text, learn
from app.tokenizers import Tokenizer

MAPPED = 1 << 28  # bytes of a text from which on its blocks are read instead of mapped
log = logging.getLogger(__name__)


@dataclass
class OneTextConfig(CorporaConfig):
    lang: str | None  # LANG of the files; null: the only one that there is, in the training split if it is there
    sample_break_mode: (
        str  # where a block ends: none (anywhere), complete, complete_doc (at line ends), eos (every line)
    )
    tokens_per_sample: int  # most tokens of a block, context and bos counted

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "tokens_per_sample")
        yield from one_of(self, "sample_break_mode", *BREAK_MODES)

    def data_faults(self, corpora: list[Corpus]) -> Iterator[str]:
        return text_faults(corpora, self.lang, self.train_split)

    def find(self, corpora: list[Corpus], split: str) -> list[tuple[Path, float]]:
        return find_split(corpora, split, language(corpora, self.lang, self.train_split))


class Blocks(NamedTuple):
    """The blocks of a split, those that are too long left out."""

    store: Store
    slices: Ids  # [N, 2] first token and end of each block
    weights: NDArray[np.float64]  # [N] how often it is seen in an epoch of training
    left_out: dict[str, int]  # reason: number of lines or blocks that are not used


class OneText:
    """The text of one task. What is prepared depends on content and settings only, and is kept in a cache.

    `symbols` are entries that the vocabulary has beside the text's pieces, such as `<mask>`.
    """

    text: Text

    def __init__(self, cfg: OneTextConfig, make_tokenizer: Callable[[], Tokenizer], symbols: tuple[str, ...] = ()):
        self.cfg, self._make_tokenizer, self._symbols = cfg, make_tokenizer, symbols
        self._corpora = [] if cfg.data is None else read_corpora(cfg.data)
        self._cache_dir: Path | None = None

    def prepare(self, cache_dir: Path) -> None:
        """Learn what `load` has not read. Splits are encoded when `blocks` asks for them."""
        self._cache_dir = cache_dir
        lang = self._language()
        self.cfg = replace(self.cfg, lang=lang)
        if hasattr(self, "text"):
            return
        cfg, paths = self.cfg, [path for path, _ in find_split(self._corpora, self.cfg.train_split, lang)]
        settings = LearningSettings(cfg.threshold, cfg.nwords, cfg.on_bad_line, self._symbols)
        self.text = learn(paths, self._make_tokenizer, settings, cfg.num_workers, cache_dir)
        log.info("vocabulary: %d pieces", len(self.text.vocabulary))

    def splits(self) -> list[str]:
        """Every split that some directory has."""
        return splits(self._corpora, self._language())

    def save(self, directory: Path) -> None:
        self.text.save(directory / "text")
        save_languages(directory, self.cfg, "lang")

    def load(self, directory: Path) -> None:
        self.text = Text.load(directory / "text", self._make_tokenizer)
        self.cfg = load_languages(directory, self.cfg)

    def blocks(self, split: str, size: int, longest: int, limit: str) -> Blocks:
        """Blocks of `size` tokens, of which those of more than `longest` are left out, by the rule called `limit`.

        No block holds lines of two directories. Raises `DataError` where none is left.
        """
        if self._cache_dir is None:
            raise RuntimeError("prepare(cache_dir) comes before blocks(split)")
        cfg, found = self.cfg, find_split(self._corpora, split, self._language())
        files, weights = [(path,) for path, _ in found], [weight for _, weight in found]
        prepared = prepare(files, {"text": self.text}, cfg.on_bad_line, cfg.num_workers, self._cache_dir)
        store = prepared.stores[0] if prepared.stores[0].nbytes < MAPPED else prepared.stores[0].unmapped()
        parts = [
            slices_of_rows(store, int(end - rows), int(end), size, cfg.sample_break_mode)
            for end, rows in zip(np.cumsum(prepared.rows), prepared.rows, strict=True)
        ]
        slices = np.concatenate(parts)
        fits = slices[:, 1] - slices[:, 0] <= longest
        left_out = {"with a bad line": prepared.bad_lines, f"over {limit}": int((~fits).sum())}
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        log.info("%s: %d blocks; left out: %s", split, fits.sum(), reasons or "none")
        if not fits.any():
            raise DataError(f"{split}: no block is left to use ({reasons or 'the files are empty'}); check task.data")
        each = np.repeat(weights, [len(part) for part in parts])
        return Blocks(store, slices[fits], each[fits], left_out)

    def _language(self) -> str:
        return language(self._corpora, self.cfg.lang, self.cfg.train_split)
