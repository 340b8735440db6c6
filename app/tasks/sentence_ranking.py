"""Which of several candidates is the right one, as in SWAG or RACE."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.config import BatchingConfig
from app.data.corpus import find_texts
from app.data.iterator import EpochIterator
from app.data.sentences import SentenceDataset
from app.errors import ConfigError, DataError
from app.interfaces import BatchIterator, Dataset, Generator, Model, Shard, Task
from app.ranges import positive
from app.tasks.sentences import Labels, Sentences, SentencesConfig, columns_of
from app.tokenizers import Tokenizer


@dataclass
class SentenceRankingConfig(SentencesConfig):
    ranking_head_name: str  # which of the model's heads scores a candidate
    max_option_length: int | None  # what of a candidate is behind this many pieces is cut off, `init_token` counted

    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.max_option_length is not None:
            yield from positive(self, "max_option_length")
        if self.num_classes == 1:
            yield "num_classes=1: there is nothing to choose from; give 2 or more, or 0"
        if self.data is not None and Path(self.data).is_dir():
            columns = {split: columns_of(names) for split, names in find_texts(Path(self.data)).items()}
            if not any(len(options_of(names)) > 1 for names in columns.values()):
                there = ", ".join(f"{split}.{name}" for split, names in columns.items() for name in names)
                yield f"data={self.data}: needs SPLIT.input1 and SPLIT.input2 to choose from; has {there or 'none'}"


def options_of(columns: list[str]) -> list[str]:
    """The columns of candidates."""
    return [column for column in columns if column != "input0"]


class SentenceRanking(Task):
    """Which of several candidates is the right one, as an answer to a question or on its own.

    Files of a directory: candidates `SPLIT.input1`, `SPLIT.input2`, ..., and `SPLIT.label`, the right one's number.
    Numbers count from 0. A row is `<s> candidate </s>`, and where there is `SPLIT.input0`, the question,
    `<s> candidate </s> </s> question </s>`, as in fairseq, which cannot do without a question.
    """

    has_references = False
    generates = False
    predicts = "candidates"

    def __init__(self, cfg: SentenceRankingConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        self.cfg, self.batching = cfg, batching
        self.classification_heads = {cfg.ranking_head_name: 1}
        self._sentences = Sentences(cfg, make_tokenizer)

    def prepare(self, cache_dir: Path) -> None:
        """Learn the text. Raises `DataError` where there are not `num_classes` candidates."""
        self._sentences.prepare(cache_dir)
        self.source_vocabulary = self.target_vocabulary = self._sentences.text.vocabulary
        options, wanted = options_of(self._sentences.columns), self.cfg.num_classes
        if len(options) < 2 or wanted not in (0, len(options)):
            mend = f"task.num_classes={wanted} of them" if wanted else "2 or more"
            raise DataError(f"{self.cfg.data}: has the candidates {', '.join(options) or 'none'}; give {mend}")

    def splits(self) -> list[str]:
        return self._sentences.splits()

    def save(self, directory: Path) -> None:
        self._sentences.save(directory)

    def load(self, directory: Path) -> None:
        self._sentences.load(directory)
        self.source_vocabulary = self.target_vocabulary = self._sentences.text.vocabulary

    def dataset(self, split: str) -> SentenceDataset:
        stores = self._sentences.stores(split)
        question = (stores["input0"],) if "input0" in stores else ()
        candidates = tuple((stores[option], *question) for option in options_of(self._sentences.columns))
        join = self.cfg.join(self.cfg.max_option_length)
        return self._sentences.dataset(split, candidates, self._labels(split), join)

    def _labels(self, split: str) -> Labels:
        """[rows] numbers of candidates, from 0. Raises `DataError` for what is none."""
        labels, count = self._sentences.labels(split), len(options_of(self._sentences.columns))
        for row, label in enumerate(labels):
            if not label.isdecimal() or int(label) >= count:
                place = self._sentences.place(split, row)
                raise DataError(f"{place}: {label!r} is not the number of a candidate, 0 to {count - 1}; mend it")
        return np.array([int(label) for label in labels], dtype=np.int64)

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, SentenceDataset)
        return EpochIterator(dataset, self.batching, epoch, shard)

    def build_generator(self, models: list[Model], search: Any) -> Generator:
        raise ConfigError(["task sentence_ranking generates no text; measure the run with app.evaluate"])

    def references(self, split: str) -> None:
        """None: nothing is generated."""
