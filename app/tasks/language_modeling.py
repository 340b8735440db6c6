"""Language modelling: one text, cut into blocks whose every token is predicted from those before it."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.config import BatchingConfig
from app.data.iterator import EpochIterator
from app.data.token_blocks import BREAK_MODES, TARGETS, BlockDataset, block_slices
from app.errors import DataError
from app.interfaces import BatchIterator, Dataset, Generator, Model, Shard, Task
from app.ranges import at_least, one_of, positive
from app.search import Search
from app.tasks.corpora import load_languages, read_corpora, save_languages
from app.tasks.generator import TextGenerator
from app.tasks.monolingual import find_split, language, splits, text_faults
from app.tasks.preparation import Prepared, prepare
from app.tasks.text import LearningSettings, Text, learn
from app.tokenizers import Tokenizer

log = logging.getLogger(__name__)


@dataclass
class LanguageModelingConfig:
    data: Any  # directory of SPLIT.LANG[.gz] files, or a list of them or of {path, weight}; null: only generate
    lang: str | None  # LANG of the files; null: the only one that there is, in the training split if it is there
    train_split: str  # the split that tokenizer and vocabulary are learnt from
    sample_break_mode: (
        str  # where a block ends: none (anywhere), complete, complete_doc (at line ends), eos (every line)
    )
    tokens_per_sample: int  # most tokens of a block, context and bos counted
    context_window: int  # tokens before a block that evaluation shows the model and does not score
    self_target: bool  # predict the newest token itself
    future_target: bool  # predict the token after it: what is done where none of the three is set
    past_target: bool  # predict the token before it
    add_bos_token: bool  # bos in front of every block
    max_target_positions: int  # longer lines (with complete and eos) are left out; in pieces, eos counted
    threshold: int  # pieces that are seen less often are unknown
    nwords: int  # most entries of the vocabulary, the four specials counted; 0: no limit
    on_bad_line: str  # a line that is no UTF-8 or has NUL: error, or skip it
    num_workers: int  # processes that encode text; 0: one a core

    def check(self) -> Iterator[str]:
        yield from positive(self, "tokens_per_sample", "max_target_positions")
        yield from at_least(self, 0, "context_window", "threshold", "nwords", "num_workers")
        yield from one_of(self, "sample_break_mode", *BREAK_MODES)
        yield from one_of(self, "on_bad_line", "error", "skip")
        if self.context_window + self.add_bos_token >= self.tokens_per_sample:
            yield f"context_window={self.context_window}: must leave room in tokens_per_sample={self.tokens_per_sample}"
        if self.tokens_per_sample > self.max_target_positions:
            limit = f"max_target_positions={self.max_target_positions}"
            yield f"tokens_per_sample={self.tokens_per_sample}: must not be more than {limit}"
        if self.self_target + self.future_target + self.past_target > 1:
            yield "self_target, future_target, past_target: a model predicts one of them; set one alone"
        if self.data is not None:
            try:
                yield from text_faults(read_corpora(self.data), self.lang, self.train_split)
            except (TypeError, ValueError) as error:
                yield f"data={self.data}: {error}"

    def check_split(self, split: str) -> Iterator[str]:
        """Whether the text has this split; for a config that has passed `check`."""
        if self.data is None:
            yield "task.data=null: there is nothing to learn from; give task.data=DIRECTORY"
            return
        corpora = read_corpora(self.data)
        try:
            find_split(corpora, split, language(corpora, self.lang, self.train_split))
        except DataError as error:
            yield str(error)

    @property
    def target(self) -> str:
        """One of TARGETS."""
        return next((kind for kind in TARGETS if getattr(self, f"{kind}_target")), "future")


class LanguageModeling(Task):
    """Blocks of one text. What is prepared depends on content and settings only, and is kept in a cache."""

    has_references = False
    text: Text

    def __init__(self, cfg: LanguageModelingConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        self.cfg, self.batching = cfg, batching
        self._make_tokenizer = make_tokenizer
        self._corpora = [] if cfg.data is None else read_corpora(cfg.data)
        self._cache_dir: Path | None = None

    def _use(self, text: Text) -> None:
        self.text = text
        self.source_vocabulary = self.target_vocabulary = text.vocabulary

    def prepare(self, cache_dir: Path) -> None:
        """Learn what `load` has not read. Splits are encoded when `dataset` asks for them."""
        self._cache_dir = cache_dir
        lang = self._language()
        self.cfg = replace(self.cfg, lang=lang)
        if hasattr(self, "text"):
            return
        paths = [path for path, _ in find_split(self._corpora, self.cfg.train_split, lang)]
        settings = LearningSettings(self.cfg.threshold, self.cfg.nwords, self.cfg.on_bad_line)
        self._use(learn(paths, self._make_tokenizer, settings, self.cfg.num_workers, cache_dir))
        log.info("vocabulary: %d pieces", len(self.target_vocabulary))

    def splits(self) -> list[str]:
        """Every split that some directory has."""
        return splits(self._corpora, self._language())

    def save(self, directory: Path) -> None:
        self.text.save(directory / "text")
        save_languages(directory, self.cfg, "lang")

    def load(self, directory: Path) -> None:
        self._use(Text.load(directory / "text", self._make_tokenizer))
        self.cfg = load_languages(directory, self.cfg)

    def dataset(self, split: str) -> BlockDataset:
        """The split's blocks; those of every split but the training one have a context window."""
        if self._cache_dir is None:
            raise RuntimeError("prepare(cache_dir) comes before dataset(split)")
        cfg, found = self.cfg, find_split(self._corpora, split, self._language())
        files, weights = [(path,) for path, _ in found], [weight for _, weight in found]
        prepared = prepare(files, {"text": self.text}, cfg.on_bad_line, cfg.num_workers, self._cache_dir)
        dataset = self._blocks(prepared, weights, 0 if split == cfg.train_split else cfg.context_window)
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.left_out.items() if count)
        log.info("%s: %d blocks; left out: %s", split, len(dataset), reasons or "none")
        if not len(dataset):
            raise DataError(f"{split}: no block is left to use ({reasons or 'the files are empty'}); check task.data")
        return dataset

    def _blocks(self, prepared: Prepared, weights: list[float], context: int) -> BlockDataset:
        (store,) = prepared.stores
        size = self.cfg.tokens_per_sample - context - self.cfg.add_bos_token
        ends = np.cumsum(prepared.rows)
        parts = [  # no block holds lines of two directories
            block_slices(store.lengths[end - rows : end], size, self.cfg.sample_break_mode) + store.offsets[end - rows]
            for end, rows in zip(ends, prepared.rows, strict=True)
        ]
        slices = np.concatenate(parts)
        longest = self.cfg.max_target_positions - context - self.cfg.add_bos_token
        fits = slices[:, 1] - slices[:, 0] <= longest
        left_out = {
            "with a bad line": prepared.bad_lines,
            f"over max_target_positions={self.cfg.max_target_positions}": int((~fits).sum()),
        }
        each = np.repeat(weights, [len(part) for part in parts])[fits]
        return BlockDataset(store, slices[fits], each, self.cfg.target, context, self.cfg.add_bos_token, left_out)

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, BlockDataset)
        return EpochIterator(dataset, self.batching, epoch, shard)

    def build_generator(self, models: list[Model], search: Search) -> Generator:
        """Lines are continued."""
        longest, max_tokens = self.cfg.max_target_positions, self.batching.max_tokens_valid
        return TextGenerator(models, search, self.text, self.text, longest, max_tokens, continues=True)

    def references(self, split: str) -> None:
        """None: there is no one right continuation."""

    def _language(self) -> str:
        return language(self._corpora, self.cfg.lang, self.cfg.train_split)
