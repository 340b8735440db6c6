"""Translation between several pairs of languages, by one model (Johnson et al., 2017)."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.config import BatchingConfig
from app.data.batch import Batch
from app.data.corpus import PairFiles, find_splits
from app.data.frame import Frame
from app.data.grouped import GroupBatch, GroupedDataset
from app.data.iterator import EpochIterator
from app.data.vocabulary import Vocabulary
from app.errors import ConfigError
from app.interfaces import Backward, BatchIterator, Criterion, Dataset, Generator, Loss, Model, Shard, Task
from app.ranges import at_least, one_of, positive
from app.search import Search
from app.tasks.corpora import CorporaConfig, Corpus, faults, find_pairs, read_corpora
from app.tasks.language_symbols import index_of, language_symbols
from app.tasks.pairs import LanguagePair, of_pair
from app.tasks.text import LearningSettings, Text, learn
from app.tokenizers import Tokenizer

log = logging.getLogger(__name__)

STYLE = "multilingual"


@dataclass
class MultilingualTranslationConfig(CorporaConfig):
    """Files of a pair may be its own: `SPLIT.PAIR.LANG[.gz]`."""

    lang_pairs: list[str]  # source and target of each pair: [en-de, de-en]
    encoder_langtok: str | None  # src, tgt: the symbol of this language, __de__, ends every source in eos's place
    decoder_langtok: bool  # the decoder starts from the target language's symbol rather than from eos
    sampling_temperature: float  # a pair of n sentences has a share n^(1/T) of an epoch; 1: as many as there are
    joined_dictionary: bool  # one tokenizer and vocabulary for all languages, rather than one for each
    max_source_positions: int  # pairs with longer sources are left out of training; in pieces, eos counted
    max_target_positions: int  # pairs with longer targets are left out of training; in pieces, eos counted

    def check(self) -> Iterator[str]:
        yield from positive(self, "max_source_positions", "max_target_positions")
        yield from at_least(self, 1, "sampling_temperature")
        if self.encoder_langtok is not None:
            yield from one_of(self, "encoder_langtok", "src", "tgt")
        wrong = [pair for pair in self.lang_pairs if len(set(pair.split("-"))) != 2 or pair.count("-") != 1]
        if wrong or not self.lang_pairs or len(set(self.lang_pairs)) < len(self.lang_pairs):
            yield f"lang_pairs={self.lang_pairs}: must be different pairs of two languages, such as [en-de, de-en]"
        else:
            yield from super().check()

    def data_faults(self, corpora: list[Corpus]) -> Iterator[str]:
        for langs in self.pairs().values():
            yield from faults(corpora, *langs)

    def find(self, corpora: list[Corpus], split: str) -> dict[str, list[tuple[PairFiles, float]]]:
        return {pair: find_pairs(corpora, split, langs) for pair, langs in self.pairs().items()}

    def pairs(self) -> dict[str, tuple[str, str]]:
        """Source and target language of each pair, by its name."""
        return {pair: (pair.split("-")[0], pair.split("-")[1]) for pair in self.lang_pairs}

    def langs(self) -> list[str]:
        """All languages, in alphabetical order."""
        return sorted({lang for langs in self.pairs().values() for lang in langs})


class MultilingualTranslation(Task):
    """A batch holds sentences of one pair. Translating is a matter of one pair too: `of_pair`.

    An ordinary model learns all pairs at once and has to be told the target language, by `encoder_langtok=tgt` or
    `decoder_langtok`; `multilingual_transformer` has encoders and decoders for each language.
    """

    has_pairs = True

    def __init__(
        self, cfg: MultilingualTranslationConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig
    ):
        self.cfg, self.batching = cfg, batching
        self.lang_pairs = list(cfg.lang_pairs)
        self._make_tokenizer = make_tokenizer
        self._corpora = [] if cfg.data is None else read_corpora(cfg.data)
        self._cache_dir: Path | None = None

    def _use(self, texts: Mapping[str, Text]) -> None:
        self._texts = texts
        self.vocabularies = {lang: text.vocabulary for lang, text in texts.items()}
        first = self.cfg.pairs()[self.lang_pairs[0]]
        self.source, self.target = (texts[lang] for lang in first)
        self.source_vocabulary, self.target_vocabulary = self.source.vocabulary, self.target.vocabulary

    def of_pair(self, pair: str | None) -> "MultilingualTranslation":
        """The same, for one pair alone."""
        if pair is None and len(self.lang_pairs) == 1:
            return self
        if pair is None or pair not in self.lang_pairs:
            raise ConfigError([f"lang_pair={pair or 'null'}: must be one of this run's {', '.join(self.lang_pairs)}"])
        alone = copy.copy(self)
        alone.lang_pairs = [pair]
        alone._use(self._texts)
        return alone

    def prepare(self, cache_dir: Path) -> None:
        """Learn what `load` has not read. Splits are encoded when `dataset` asks for them."""
        self._cache_dir = cache_dir
        if hasattr(self, "_texts"):
            return
        paths: dict[str, dict[Path, None]] = {lang: {} for lang in self.cfg.langs()}  # each file once, in a fixed order
        for langs in self.cfg.pairs().values():
            for files, _ in find_pairs(self._corpora, self.cfg.train_split, langs):
                for lang, path in zip(langs, files, strict=True):
                    paths[lang][path] = None
        if self.cfg.joined_dictionary:
            joined = self._learn([path for each in paths.values() for path in each], cache_dir)
            self._use(dict.fromkeys(paths, joined))
        else:
            self._use({lang: self._learn(list(each), cache_dir) for lang, each in paths.items()})
        sizes = ", ".join(f"{lang} {len(vocabulary)}" for lang, vocabulary in self.vocabularies.items())
        log.info("vocabularies (%s): %s", "one for all" if self.cfg.joined_dictionary else "one each", sizes)

    def splits(self) -> list[str]:
        """Every split that all pairs have."""
        names: set[str] = set()
        for path, _ in self._corpora:
            names |= {split.partition(".")[0] for split in find_splits(path)}
        return sorted(name for name in names if not list(self.cfg.check_split(name)))

    def _learn(self, paths: list[Path], cache_dir: Path) -> Text:
        cfg = self.cfg
        asked = cfg.encoder_langtok is not None or cfg.decoder_langtok
        symbols = language_symbols(cfg.langs(), STYLE) if asked else ()
        settings = LearningSettings(cfg.threshold, cfg.nwords, cfg.on_bad_line, symbols)
        return learn(paths, self._make_tokenizer, settings, cfg.num_workers, cache_dir)

    def save(self, directory: Path) -> None:
        for lang, text in self._texts.items():
            text.save(directory / ("joined" if self.cfg.joined_dictionary else f"text-{lang}"))

    def load(self, directory: Path) -> None:
        if self.cfg.joined_dictionary:
            self._use(dict.fromkeys(self.cfg.langs(), Text.load(directory / "joined", self._make_tokenizer)))
        else:
            langs = self.cfg.langs()
            self._use({lang: Text.load(directory / f"text-{lang}", self._make_tokenizer) for lang in langs})

    def dataset(self, split: str) -> GroupedDataset:
        """The sentences of every pair that training can use. Where all together are many, every pair's are large."""
        if self._cache_dir is None:
            raise RuntimeError("prepare(cache_dir) comes before dataset(split)")
        pairs = {name: self._pair(name) for name in self.lang_pairs}
        opened = {name: pair.opened(split, self._cache_dir) for name, pair in pairs.items()}
        is_large = 0 < self.batching.window_of_order < sum(each.size for each in opened.values())
        parts = {name: pair.used(opened[name], self._cache_dir, is_large) for name, pair in pairs.items()}
        return GroupedDataset(parts, self.cfg.sampling_temperature)

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, GroupedDataset)
        return EpochIterator(dataset, self.batching, epoch, shard)

    def train_step(self, batch: Batch, model: Model, criterion: Criterion, optimizer: Backward) -> Loss:
        assert isinstance(batch, GroupBatch)
        return of_group(super().train_step(batch, of_pair(model, batch.group), criterion, optimizer), batch.group)

    def valid_step(self, batch: Batch, model: Model, criterion: Criterion, optimizer: Backward) -> Loss:
        assert isinstance(batch, GroupBatch)
        return of_group(super().valid_step(batch, of_pair(model, batch.group), criterion, optimizer), batch.group)

    def build_generator(self, models: list[Model], search: Search) -> Generator:
        return self.only_pair().build_generator(models, search, self.batching.max_tokens_valid)

    def references(self, split: str) -> tuple[list[str], list[str]]:
        """See `app.tasks.pairs.read_references`."""
        return self.only_pair().references(split)

    def only_pair(self) -> LanguagePair:
        """The only pair; `ConfigError` where there are several."""
        return self._pair(self.of_pair(None).lang_pairs[0])

    def _pair(self, pair: str) -> LanguagePair:
        source, target = langs = self.cfg.pairs()[pair]
        texts = self._texts[source], self._texts[target]
        return LanguagePair(self.cfg, self._corpora, langs, *texts, self._frame(source, target), False, True)

    def _frame(self, source: str, target: str) -> Frame:
        cfg = self.cfg
        end, start = (Vocabulary.eos,), Vocabulary.eos
        if cfg.encoder_langtok is not None:
            end = (index_of(self.vocabularies[source], source if cfg.encoder_langtok == "src" else target, STYLE),)
        if cfg.decoder_langtok:
            start = index_of(self.vocabularies[target], target, STYLE)
        return Frame(source_end=end, decoder_start=start)


def of_group(loss: Loss, group: str) -> Loss:
    """The loss, with what makes a group's own nll_loss in its logs (`app.meters`)."""
    own = {f"nll_loss_{group}": loss.logs.get("nll_loss", loss.logs["loss"]), f"ntokens_{group}": loss.logs["ntokens"]}
    return loss._replace(logs={**loss.logs, **own})
