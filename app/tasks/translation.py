"""Translation of text: pairs of lines in files `SPLIT.LANG`."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from app.config import BatchingConfig
from app.data.corpus import PairFiles, find_splits
from app.data.dataset import PairDataset
from app.data.frame import Frame
from app.data.iterator import EpochIterator
from app.data.masking import MASK
from app.data.vocabulary import Vocabulary
from app.interfaces import BatchIterator, Dataset, Generator, Model, Shard, Task
from app.ranges import positive
from app.search import Search
from app.tasks.corpora import (
    CorporaConfig,
    Corpus,
    faults,
    find_pairs,
    language_pair,
    load_languages,
    read_corpora,
    save_languages,
)
from app.tasks.language_symbols import index_of, language_symbols
from app.tasks.pairs import LanguagePair, read_references
from app.tasks.text import LearningSettings, Text, learn
from app.tokenizers import Tokenizer

log = logging.getLogger(__name__)


@dataclass
class TranslationConfig(CorporaConfig):
    source_lang: str | None  # LANG of the source; null: the first of the two that there are, in alphabetical order
    target_lang: str | None  # LANG of the target; null: the other one
    joined_dictionary: bool  # one tokenizer and vocabulary for both languages
    max_source_positions: int  # pairs with longer sources are left out of training; in pieces, eos counted
    max_target_positions: int  # pairs with longer targets are left out of training; in pieces, eos counted
    load_alignments: bool  # read SPLIT.SOURCE-TARGET.align too, for criterions that teach alignments
    langs: list[str] | None  # as mBART: both sides end with their language's symbol, such as [de]; all that there are
    prepend_bos: bool  # as BART and mBART: both sides start with bos

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "max_source_positions", "max_target_positions")
        if self.source_lang is not None and self.source_lang == self.target_lang:
            yield f"target_lang={self.target_lang}: is the source's language too; give another"
        if self.langs is not None and not self.joined_dictionary:
            yield f"langs={self.langs}: their symbols are in one vocabulary; set joined_dictionary=true"

    def data_faults(self, corpora: list[Corpus]) -> Iterator[str]:
        return faults(corpora, self.source_lang, self.target_lang)

    def find(self, corpora: list[Corpus], split: str) -> list[tuple[PairFiles, float]]:
        return find_pairs(corpora, split, language_pair(corpora, self.source_lang, self.target_lang))


class Translation(Task):
    """Source lines to target lines. What is prepared depends on content and settings only, and is kept in a cache."""

    source: Text
    target: Text

    def __init__(self, cfg: TranslationConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        self.cfg, self.batching = cfg, batching
        self._make_tokenizer = make_tokenizer
        self._corpora = [] if cfg.data is None else read_corpora(cfg.data)
        self._cache_dir: Path | None = None

    def _use(self, source: Text, target: Text) -> None:
        self.source, self.target = source, target
        self.source_vocabulary, self.target_vocabulary = source.vocabulary, target.vocabulary

    def prepare(self, cache_dir: Path) -> None:
        """Learn what `load` has not read. Splits are encoded when `dataset` asks for them."""
        self._cache_dir = cache_dir
        langs = self._languages()
        self.cfg = replace(self.cfg, source_lang=langs[0], target_lang=langs[1])
        if not hasattr(self, "source"):
            self._learn_both(langs, cache_dir)
        self._frame(langs)  # refuses what the vocabulary has no symbol for

    def _learn_both(self, langs: tuple[str, str], cache_dir: Path) -> None:
        log.info("translation from %s to %s", *langs)
        pairs = [files for files, _ in find_pairs(self._corpora, self.cfg.train_split, langs)]
        sources, targets = [files.source for files in pairs], [files.target for files in pairs]
        if self.cfg.joined_dictionary:
            joined = self._learn(sources + targets, cache_dir)
            self._use(joined, joined)
        else:
            self._use(self._learn(sources, cache_dir), self._learn(targets, cache_dir))
        log.info(
            "vocabularies: %d source and %d target pieces", len(self.source_vocabulary), len(self.target_vocabulary)
        )

    def splits(self) -> list[str]:
        """Every split that some directory has in both languages."""
        langs = self._languages()
        return sorted(
            {split for path, _ in self._corpora for split, has in find_splits(path).items() if has >= {*langs}}
        )

    def _learn(self, paths: list[Path], cache_dir: Path) -> Text:
        symbols = () if self.cfg.langs is None else (*language_symbols(self.cfg.langs, "mbart"), MASK)
        settings = LearningSettings(self.cfg.threshold, self.cfg.nwords, self.cfg.on_bad_line, symbols)
        return learn(paths, self._make_tokenizer, settings, self.cfg.num_workers, cache_dir)

    def save(self, directory: Path) -> None:
        if self.cfg.joined_dictionary:
            self.source.save(directory / "joined")
        else:
            self.source.save(directory / "source")
            self.target.save(directory / "target")
        save_languages(directory, self.cfg, "source_lang", "target_lang")

    def load(self, directory: Path) -> None:
        """A run of one text, such as that of task denoising, will do where one vocabulary is wanted."""
        joined = "joined" if (directory / "joined").is_dir() or not (directory / "text").is_dir() else "text"
        names = [joined] if self.cfg.joined_dictionary else ["source", "target"]
        texts = [Text.load(directory / name, self._make_tokenizer) for name in names]
        self._use(texts[0], texts[-1])
        self.cfg = load_languages(directory, self.cfg)

    def dataset(self, split: str) -> PairDataset:
        """The split's pairs that training can use; which are left out, and why, is counted and logged."""
        if self._cache_dir is None:
            raise RuntimeError("prepare(cache_dir) comes before dataset(split)")
        return self.only_pair().dataset(split, self._cache_dir, self.batching.window_of_order)

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, PairDataset)
        return EpochIterator(dataset, self.batching, epoch, shard)

    def build_generator(self, models: list[Model], search: Search) -> Generator:
        return self.only_pair().build_generator(models, search, self.batching.max_tokens_valid)

    def references(self, split: str) -> tuple[list[str], list[str]]:
        """Source and target lines, one for each line of the files: none is ever left out here."""
        policy = self.cfg.on_bad_line
        return read_references(self._corpora, self._languages(), split, policy, lambda: (self.source, self.target))

    def only_pair(self) -> LanguagePair:
        """What there is of this pair of languages."""
        langs, cfg = self._languages(), self.cfg
        return LanguagePair(
            cfg, self._corpora, langs, self.source, self.target, self._frame(langs), cfg.load_alignments
        )

    def _frame(self, langs: tuple[str, str]) -> Frame:
        """bos and language symbols around the pieces, as far as they are asked for."""
        start = (Vocabulary.bos,) if self.cfg.prepend_bos else ()
        if self.cfg.langs is None:
            return Frame(source_start=start, target_start=start)
        source, target = (index_of(self.source_vocabulary, lang, "mbart") for lang in langs)
        return Frame(start, (Vocabulary.eos, source), start, (Vocabulary.eos, target), target)

    def _languages(self) -> tuple[str, str]:
        return language_pair(self._corpora, self.cfg.source_lang, self.cfg.target_lang)
