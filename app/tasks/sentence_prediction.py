"""Classes of sentences, or of sentence pairs, or numbers for them, as in GLUE (Wang et al., 2018)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from app.config import BatchingConfig
from app.data.batching import make_batches
from app.data.iterator import EpochIterator
from app.data.sentences import SentenceDataset, sentence_batch
from app.errors import ConfigError, DataError
from app.interfaces import BatchIterator, Classifies, Dataset, Generator, Model, Shard, Task
from app.tasks.sentences import Labels, Predicted, Sentences, SentencesConfig
from app.tokenizers import Tokenizer

HEAD = ("classification_head_name", "regression_target")  # what classes belong to


@dataclass
class SentencePredictionConfig(SentencesConfig):
    classification_head_name: str  # which of the model's heads answers; classes are learnt anew for a new one
    regression_target: bool  # labels are numbers rather than classes

    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.regression_target and self.num_classes > 1:
            yield f"num_classes={self.num_classes}: a regression has one number; set it to 0"


class SentencePrediction(Task):
    """A class, or a number, for a sentence or a pair of them.

    Files of a directory: `SPLIT.input0`, for pairs `SPLIT.input1`, and `SPLIT.label`, a sample a line.
    A row is `<s> first text </s> </s> second text </s>`. Labels are any words; the classes are those of the training
    split, in order of their numbers, or alphabetically. fairseq needs labels in a dictionary, and their number told.
    """

    has_references = False
    generates = False
    predicts = "classes"

    def __init__(
        self, cfg: SentencePredictionConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig
    ):
        self.cfg, self.batching = cfg, batching
        self._sentences = Sentences(cfg, make_tokenizer)

    def prepare(self, cache_dir: Path) -> None:
        """Learn text and classes. Raises `DataError` where there are not `num_classes` of them."""
        self._sentences.prepare(cache_dir)
        if not self._knows_its_classes():
            head = {name: getattr(self.cfg, name) for name in HEAD}
            self._sentences.facts = {**head, "classes": self._learn_classes()}
        self._use()

    def _knows_its_classes(self) -> bool:
        """Whether what was loaded is of this head; a run that starts from another's weights may have one of its own."""
        return all(self._sentences.facts.get(name) == getattr(self.cfg, name) for name in HEAD)

    def _use(self) -> None:
        self.source_vocabulary = self.target_vocabulary = self._sentences.text.vocabulary
        if self._knows_its_classes():
            self.classification_heads = {self.cfg.classification_head_name: len(self.classes) or 1}

    def _learn_classes(self) -> list[str]:
        if self.cfg.regression_target:
            return []
        found = set(self._sentences.labels(self.cfg.train_split))
        classes = sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)
        if self.cfg.num_classes not in (0, len(classes)):
            some = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
            place = f"{self.cfg.data}: {self.cfg.train_split}.label"
            raise DataError(f"{place} has {len(classes)} classes ({some}), not task.num_classes={self.cfg.num_classes}")
        return classes

    @property
    def classes(self) -> list[str]:
        """The labels in the order of the head's scores; none for a regression."""
        classes: list[str] = self._sentences.facts["classes"]
        return classes

    def splits(self) -> list[str]:
        return self._sentences.splits()

    def save(self, directory: Path) -> None:
        self._sentences.save(directory)

    def load(self, directory: Path) -> None:
        self._sentences.load(directory)
        self._use()

    def dataset(self, split: str) -> SentenceDataset:
        texts = tuple(self._sentences.stores(split).values())
        return self._sentences.dataset(split, (texts,), self._labels(split), self.cfg.join())

    def _labels(self, split: str) -> Labels:
        """[rows] classes or numbers. Raises `DataError` for what is neither."""
        labels, numbers = self._sentences.labels(split), {label: i for i, label in enumerate(self.classes)}
        if self.cfg.regression_target:
            return np.array([self._number(split, row, label) for row, label in enumerate(labels)], dtype=np.float32)
        for row, label in enumerate(labels):
            if label not in numbers:
                known = ", ".join(self.classes[:8]) + (", ..." if len(self.classes) > 8 else "")
                mend = "mend it, or give a new criterion.classification_head_name to learn new classes"
                raise DataError(f"{self._sentences.place(split, row)}: {label!r} is not one of {known}; {mend}")
        return np.array([numbers[label] for label in labels], dtype=np.int64)

    def _number(self, split: str, row: int, label: str) -> float:
        try:
            number = float(label)
        except ValueError:
            number = float("nan")
        if not isfinite(number):
            mend = "mend it, or set criterion.regression_target=false for classes"
            raise DataError(f"{self._sentences.place(split, row)}: {label!r} is not a number; {mend}")
        return number

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, SentenceDataset)
        return EpochIterator(dataset, self.batching, epoch, shard)

    def predict(self, models: Sequence[Model], rows: Sequence[Sequence[str]]) -> list[Predicted]:
        """See `Predicts`. Raises `DataError` for a row that is too long, or has another number of texts."""
        encoded = [self._encode(number, texts) for number, texts in enumerate(rows)]
        lengths = np.array([len(row) for row in encoded], dtype=np.int64)
        most = max(self.batching.max_tokens_valid, int(lengths.max(initial=0)))
        predicted: dict[int, Predicted] = {}
        for samples in make_batches(lengths, lengths, most):
            batch = sentence_batch([encoded[i] for i in samples], samples, np.zeros(len(samples), dtype=np.int64))
            batch = batch.to(next(models[0].parameters()).device)
            with torch.inference_mode():
                scores = [cast(Classifies, each).classify(batch, self.cfg.classification_head_name) for each in models]
            if self.cfg.regression_target:
                answers = [Predicted(f"{value:g}", value) for value in torch.stack(scores).mean(0).flatten().tolist()]
            else:
                best = torch.stack([each.softmax(-1) for each in scores]).mean(0).max(-1)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                answers = [Predicted(self.classes[i], value) for i, value in pairs]
            predicted |= zip(samples.tolist(), answers, strict=True)
        return [predicted[number] for number in range(len(rows))]

    def _encode(self, number: int, texts: Sequence[str]) -> Any:
        wanted, text = len(self._sentences.columns), self._sentences.text
        if len(texts) != wanted:
            raise DataError(f"row {number + 1}: has {len(texts)} texts; this model was trained on {wanted} a row")
        row = self.cfg.join().row([text.encode_lines([each])[0].astype(np.int64) for each in texts])
        if len(row) > self.cfg.max_positions:
            mend = "cut it, or train with task.shorten_method=truncate"
            raise DataError(f"row {number + 1}: has {len(row)} pieces, more than {self.cfg.max_positions}; {mend}")
        return row

    def build_generator(self, models: list[Model], search: Any) -> Generator:
        raise ConfigError(["task sentence_prediction generates no text; use app.evaluate, or app.hub's predict"])

    def references(self, split: str) -> None:
        """None: nothing is generated."""
