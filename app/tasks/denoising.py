"""Denoising of text: blocks are disturbed, and a model restores them (Lewis et al., 2020)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from app.config import BatchingConfig
from app.data.denoising import DenoisingDataset
from app.data.frame import Frame
from app.data.grouped import GroupedDataset
from app.data.iterator import EpochIterator
from app.data.masking import MASK
from app.data.noise import Noise, NoiseConfig
from app.data.vocabulary import Vocabulary
from app.errors import CheckpointError, DataError
from app.interfaces import BatchIterator, Dataset, Generator, Model, Shard, Task
from app.ranges import at_least, positive
from app.search import Search
from app.tasks.corpora import read_corpora
from app.tasks.generator import TextGenerator
from app.tasks.language_symbols import index_of, language_symbols
from app.tasks.monolingual import find_split
from app.tasks.one_text import OneText, OneTextConfig
from app.tasks.text import LearningSettings, Text, learn
from app.tokenizers import Tokenizer


@dataclass
class DenoisingConfig(NoiseConfig, OneTextConfig):
    langs: list[str] | None  # several languages in place of `lang`: one vocabulary, which also has their symbols, [de]
    add_lang_token: bool  # with `langs`: a block ends with its language's symbol, behind eos (mBART)
    sampling_temperature: float  # with `langs`: a language of n blocks has a share n^(1/T) of an epoch
    max_source_positions: int  # what noise made longer is cut; in pieces, bos and eos counted
    max_target_positions: int  # longer lines (with complete and eos) are left out; in pieces, bos and eos counted

    def check(self) -> Iterator[str]:
        yield from NoiseConfig.check(self)
        yield from positive(self, "max_source_positions", "max_target_positions")
        yield from at_least(self, 1, "sampling_temperature")
        if self.add_lang_token and self.langs is None:
            yield f"add_lang_token=true: is for several languages; set langs, such as [{self.lang or 'de'}]"
        most = min(self.max_source_positions, self.max_target_positions)
        if not 3 <= self.tokens_per_sample <= most:
            yield f"tokens_per_sample={self.tokens_per_sample}: must be 3 or more, and max_..._positions={most} or less"
        if self.langs is None:
            yield from OneTextConfig.check(self)
            return
        if self.lang is not None or not self.langs or len(set(self.langs)) < len(self.langs):
            yield f"langs={self.langs}: must be different languages, and take the place of lang={self.lang}"
        for each in self.each_language():
            yield from OneTextConfig.check(each)

    def check_split(self, split: str) -> Iterator[str]:
        """Whether the text has this split in every language; for a config that has passed `check`."""
        for each in self.each_language():
            yield from OneTextConfig.check_split(each, split)

    def each_language(self) -> list["DenoisingConfig"]:
        """The config of every language's text."""
        return [self] if self.langs is None else [replace(self, lang=lang) for lang in self.langs]


class Denoising(Task):
    """Blocks of one text, or of one in each of several languages. `<mask>` is the vocabulary's last entry."""

    has_references = False

    def __init__(self, cfg: DenoisingConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        self.cfg, self.batching = cfg, batching
        self._make_tokenizer = make_tokenizer
        self._symbols = (*language_symbols(cfg.langs or [], "mbart"), MASK)
        self._texts = [OneText(each, make_tokenizer, self._symbols) for each in cfg.each_language()]

    @property
    def text(self) -> Text:
        return self._texts[0].text

    def _use(self) -> None:
        self.source_vocabulary = self.target_vocabulary = self.text.vocabulary

    def prepare(self, cache_dir: Path) -> None:
        """Learn what `load` has not read, from all languages. Splits are encoded when `dataset` asks for them."""
        if self.cfg.mask_length != "subword":
            self._make_tokenizer().begins_word(MASK)  # refuses before anything is learnt
        if self.cfg.langs is not None and not hasattr(self._texts[0], "text"):
            text = self._learn(cache_dir)
            for each in self._texts:
                each.text = text
        for each in self._texts:
            each.prepare(cache_dir)
        self._use()

    def _learn(self, cache_dir: Path) -> Text:
        cfg, corpora = self.cfg, read_corpora(self.cfg.data)
        paths = [path for lang in cfg.langs or [] for path, _ in find_split(corpora, cfg.train_split, lang)]
        settings = LearningSettings(cfg.threshold, cfg.nwords, cfg.on_bad_line, self._symbols)
        return learn(paths, self._make_tokenizer, settings, cfg.num_workers, cache_dir)

    def splits(self) -> list[str]:
        """Every split that all languages have."""
        return sorted(set.intersection(*(set(each.splits()) for each in self._texts)))

    def save(self, directory: Path) -> None:
        self._texts[0].save(directory)

    def load(self, directory: Path) -> None:
        """Raises CheckpointError where the vocabulary has no `<mask>`."""
        for each in self._texts:
            each.load(directory)
        self._use()
        if MASK not in self.text.vocabulary.pieces:
            raise CheckpointError(f"{directory}: the vocabulary has no {MASK}; take a run of task denoising")

    def dataset(self, split: str) -> DenoisingDataset | GroupedDataset:
        """The split's blocks, which every epoch disturbs anew and validation always alike."""
        parts = {str(each.cfg.lang): self._part(each, split) for each in self._texts}
        if self.cfg.langs is None:
            return next(iter(parts.values()))
        return GroupedDataset(parts, self.cfg.sampling_temperature)

    def _part(self, one_text: OneText, split: str) -> DenoisingDataset:
        cfg, vocabulary = self.cfg, self.text.vocabulary
        language = index_of(vocabulary, str(one_text.cfg.lang), "mbart") if cfg.add_lang_token else None
        around = 2 if language is None else 3
        limit = f"max_target_positions={cfg.max_target_positions}"
        blocks = one_text.blocks(split, cfg.tokens_per_sample - around, cfg.max_target_positions - around, limit)
        begins = self.text.word_begins() if cfg.mask_length != "subword" else None
        dataset = DenoisingDataset(
            *blocks,
            Noise(cfg, vocabulary.index(MASK), len(vocabulary), begins),
            self.batching.seed,
            cfg.max_source_positions,
            language,
        )
        filled = dataset.source_lengths > around
        if not filled.any():
            raise DataError(f"{split}: all lines are empty; check task.data")
        return replace(dataset, slices=blocks.slices[filled], weights=blocks.weights[filled])

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, (DenoisingDataset, GroupedDataset))
        return EpochIterator(dataset, self.batching, epoch, shard)

    def build_generator(self, models: list[Model], search: Search) -> Generator:
        """Lines are restored."""
        frame = Frame(source_start=(Vocabulary.bos,), target_start=(Vocabulary.bos,))
        longest, max_tokens = self.cfg.max_source_positions, self.batching.max_tokens_valid
        return TextGenerator(models, search, self.text, self.text, longest, max_tokens, frame=frame)

    def references(self, split: str) -> None:
        """None: there is no text that is worse than its reference."""
