"""From run directories to translations: what `app.generate` and `app.interactive` share."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import rich
import rich.progress
import torch

from app.assembly import restore
from app.check import device_faults
from app.config import InteractiveConfig
from app.data.vocabulary import Vocabulary
from app.errors import CheckpointError, ConfigError, DataError
from app.formats import Record
from app.interfaces import Generator, Model, Task
from app.search import Search
from app.trainer import choose_device

log = logging.getLogger("generate")


def load_generator(
    cfg: InteractiveConfig, make_search: Callable[[Vocabulary], Search], data: str | None = None
) -> tuple[Task, Generator]:
    """The first checkpoint's task, and a generator with the models of all: an ensemble, which shares vocabularies."""
    if cfg.num_threads:
        torch.set_num_threads(cfg.num_threads)
    if faults := list(device_faults(cfg.device, "device")):
        raise ConfigError(faults)
    task, models = load_models([Path(name) for name in cfg.checkpoints()], cfg.device, data, cfg.max_tokens)
    task = task.of_pair(cfg.lang_pair)
    return task, task.build_generator(models, load_search(make_search, task.target_vocabulary, cfg.device))


def load_models(paths: list[Path], device: str, data: str | None, max_tokens: int) -> tuple[Task, list[Model]]:
    """The first checkpoint's task and the models of all, which must share its vocabularies."""
    restored = [restore(path, choose_device(device), data, max_tokens) for path in paths]
    task = restored[0].task
    for path, other in zip(paths, restored):
        same_source = other.task.source_vocabulary == task.source_vocabulary
        if not same_source or other.task.target_vocabulary != task.target_vocabulary:
            raise CheckpointError(f"{path}: has other vocabularies than {paths[0]}; an ensemble must share them")
    return task, [each.model for each in restored]


def load_search(make_search: Callable[[Vocabulary], Search], vocabulary: Vocabulary, device: str) -> Search:
    """The search, with the language model that it asks for."""
    search = make_search(vocabulary)
    if search.lm_path is not None:
        lm = restore(Path(search.lm_path), choose_device(device))
        if lm.task.target_vocabulary != vocabulary:
            raise CheckpointError(f"{search.lm_path}: has another vocabulary than the models")
        search.lm = lm.model
    return search


def translate(
    generator: Generator, lines: Iterable[str], references: Iterable[str] | None, buffer_size: int
) -> Iterator[Record]:
    """A record for every line, in order. `buffer_size` lines are held at once and batched by length."""
    numbered = enumerate(lines)
    targets = None if references is None else iter(references)
    while chunk := list(islice(numbered, buffer_size)):
        try:
            translations = generator.generate([line for _, line in chunk])
        except DataError as error:  # it counts from the lines that it was given
            raise DataError(f"input, counted from line {chunk[0][0] + 1}: {error}") from None
        for (number, line), hypotheses in zip(chunk, translations, strict=True):
            yield Record(number, line, hypotheses, None if targets is None else next(targets))


def progress(records: Iterator[Record], total: int | None, shown: bool) -> Iterator[Record]:
    """The same records, with a bar on standard error, if that is a terminal."""
    console = rich.get_console()
    if not (shown and console.is_interactive):
        yield from records
        return
    yield from rich.progress.track(records, "translating", total=total, console=console, transient=True)


class Rate:
    """Counts what is translated, for the line at the end."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.sentences = 0
        self.tokens = 0  # of the best translations, eos counted

    def add(self, record: Record) -> None:
        self.sentences += 1
        self.tokens += len(record.translations[0].positional_scores) if record.translations else 0

    def report(self) -> None:
        seconds = time.perf_counter() - self.start
        log.info(
            "Translated %d sentences (%d tokens) in %.1fs (%.2f sentences/s, %.2f tokens/s)",
            self.sentences,
            self.tokens,
            seconds,
            self.sentences / seconds,
            self.tokens / seconds,
        )
