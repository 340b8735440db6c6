"""A task's encoded splits as a data-bin directory, which fairseq and this program read."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.data.dataset import PairDataset
from app.data.indexed import write_indexed
from app.data.store import Store
from app.data.token_blocks import BlockDataset
from app.data.vocabulary import Vocabulary
from app.errors import ConfigError, StorageError
from app.interfaces import Task

log = logging.getLogger("preprocess")

ROWS = 1 << 20  # rows that are copied together


def write_data_bin(task: Task, splits: list[str], output: Path) -> None:
    """Of a translation `SPLIT.SRC-TGT.LANG.{idx,bin}`, `dict.LANG.txt`; of one text `SPLIT.{idx,bin}`, `dict.txt`.

    Every row is written, with those that training leaves out. Raises StorageError.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for split in splits:
            for name, dictionary, store, vocabulary in parts(task, split):
                vocabulary.save(output / dictionary)
                with write_indexed(output / f"{name}.idx", len(vocabulary)) as add:
                    for start in range(0, len(store), ROWS):
                        offsets = store.offsets[start : start + ROWS + 1]
                        add(store.ids[offsets[0] : offsets[-1]], np.diff(offsets))
                log.info("%s: %s sentences", output / f"{name}.idx", f"{len(store):,}")
    except OSError as error:
        raise StorageError(f"{output}: {error.strerror or error}; make room or give another output") from None


def parts(task: Any, split: str) -> Iterator[tuple[str, str, Store, Vocabulary]]:
    """Name, dictionary's name, rows and vocabulary of each file of a split."""
    dataset = task.dataset(split)
    if isinstance(dataset, PairDataset):
        langs = (task.cfg.source_lang, task.cfg.target_lang)
        vocabularies = (task.source_vocabulary, task.target_vocabulary)
        for lang, store, vocabulary in zip(langs, (dataset.source, dataset.target), vocabularies, strict=True):
            yield f"{split}.{'-'.join(langs)}.{lang}", f"dict.{lang}.txt", store, vocabulary
    elif isinstance(dataset, BlockDataset):
        yield split, "dict.txt", dataset.store, task.target_vocabulary
    else:
        raise ConfigError(["format=fairseq: is written for task=translation and task=language_modeling"])
