"""From run directories to translations: what `app.generate` and `app.interactive` share."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import rich
import rich.progress
import torch

from app.assembly import Restored, restore
from app.data.vocabulary import Vocabulary
from app.errors import CheckpointError, ConfigError, DataError
from app.exporters.ctranslate2_search import CTranslate2Search
from app.formats import Record
from app.interfaces import Generator, LanguageModel, Model, Task, Translation
from app.modules.packing import packed
from app.roots import TranslateConfig
from app.runtime.memory import keep_buffers, keep_few_kernels
from app.runtime.precision import DTYPES
from app.search import Search
from app.trainer import choose_device

log = logging.getLogger("generate")

CUTS = [  # where a line may be cut, the best places first: after a sentence, after a clause, between words
    re.compile(r"[.!?…।؟۔][\"')\]»”’]*\s+|[。！？][」』”’]*(?=[^\s。！？」』”’])"),
    re.compile(r"[,;:،؛][\"')\]»”’]*\s+|\s[-–—](?=\s)|[、，；：]+(?=[^\s、，；：])"),
    re.compile(r"\s+"),
]


def load_generator(cfg: TranslateConfig, plugins: Mapping[str, Any], data: str | None = None) -> tuple[Task, Generator]:
    """The first checkpoint's task, and a generator with the models of all: an ensemble, which shares vocabularies.

    `plugins` has the factories of `search` and `precision`.
    """
    if cfg.num_threads:
        torch.set_num_threads(cfg.num_threads)
    keep_buffers()
    keep_few_kernels()
    runs = load_runs([Path(name) for name in cfg.checkpoints()], cfg.device, data, cfg.max_tokens)
    task, models = runs[0].task.of_pair(cfg.lang_pair), [run.model for run in runs]
    precision = plugins["precision"](choose_device(cfg.device)).name
    search = load_search(plugins["search"], task.target_vocabulary, cfg.device)
    if cfg.long_lines == "split" and (faults := list(splitting_faults(search, models))):
        raise ConfigError(faults)
    if cfg.engine == "ctranslate2":
        search = CTranslate2Search(search, runs, precision, cfg.num_threads)
    else:
        prepare_models(models, precision)
    return task, task.build_generator(models, search)


def splitting_faults(search: Search, models: list[Model]) -> Iterator[str]:
    """Where the parts of a line, each translated on its own, would not be the line's translation."""
    if search.phrases is not None:
        yield f"long_lines=split: {type(search).__name__} cannot know which part a phrase belongs to; split the lines"
    if any(isinstance(model, LanguageModel) for model in models):
        yield "long_lines=split: a language model goes on after a line, and has nothing to put between its parts"


def load_runs(paths: list[Path], device: str, data: str | None, max_tokens: int) -> list[Restored]:
    """What the checkpoints hold, which must share the first one's vocabularies."""
    restored = [restore(path, choose_device(device), data, max_tokens) for path in paths]
    task = restored[0].task
    for path, other in zip(paths, restored):
        same_source = other.task.source_vocabulary == task.source_vocabulary
        if not same_source or other.task.target_vocabulary != task.target_vocabulary:
            raise CheckpointError(f"{path}: has other vocabularies than {paths[0]}; an ensemble must share them")
    return restored


def prepare_models(models: list[Model], precision: str) -> None:
    """Give the models, in place, the weights that they compute fastest with; they cannot be trained any more."""
    for model in models:
        on_cpu = next(model.parameters()).device.type == "cpu"
        if precision == ("fp16" if on_cpu else "int8"):
            raise ConfigError([f"precision={precision}: is not for this device; choose fp32 or bf16"])
        if on_cpu:
            packed(model, precision)
        elif precision != "fp32":
            model.to(DTYPES[precision])


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
    generator: Generator,
    lines: Iterable[str],
    references: Iterable[str] | None,
    buffer_size: int,
    split: bool = False,
    first: int = 0,
) -> Iterator[Record]:
    """A record for every line, in order. `buffer_size` lines are held at once and batched by length.

    With `split`, a line that is too long is translated in parts.
    """
    numbered = enumerate(lines, start=first)
    targets = None if references is None else iter(references)
    while chunk := list(islice(numbered, buffer_size)):
        try:
            translations = translated(generator, [line for _, line in chunk], split)
        except DataError as error:  # it counts from the lines that it was given
            raise DataError(f"input, counted from line {chunk[0][0] + 1}: {error}") from None
        for (number, line), hypotheses in zip(chunk, translations, strict=True):
            yield Record(number, line, hypotheses, None if targets is None else next(targets))


def translated(generator: Generator, lines: list[str], split: bool) -> list[list[Translation]]:
    """The n best of every line; with `split`, of a line that is too long its parts' best as one."""
    if not split:
        return generator.generate(lines)
    parts = [[line] for line in lines]
    for number in generator.too_long(lines):
        try:
            parts[number] = list(parts_of(generator, lines[number]))
        except DataError as error:
            raise DataError(f"line {number + 1}: {error}") from None
    found = iter(generator.generate([part for each in parts for part in each]))
    each_line = [[next(found) for _ in each] for each in parts]
    return [each[0] if len(each) == 1 else [one_of_parts([best[0] for best in each])] for each in each_line]


def parts_of(generator: Generator, line: str) -> Iterator[str]:
    """Parts that are not too long: cut near the middle, at the best kind of place that there is, and none is lost."""
    if not generator.too_long([line]):
        yield line
        return
    line = line.strip()
    ends = next(filter(None, ([match.end() for match in cut.finditer(line)] for cut in CUTS)), None)
    if ends is None:
        raise DataError(f"{line[:40]!r}... is one word and too long for the model; nothing can be split")
    middle = min(ends, key=lambda end: abs(2 * end - len(line)))
    yield from parts_of(generator, line[:middle])
    yield from parts_of(generator, line[middle:])


def one_of_parts(parts: list[Translation]) -> Translation:
    """The parts' translations as one; the score is the mean over their tokens."""
    positional = [score for part in parts for score in part.positional_scores]
    return Translation(
        text=" ".join(part.text for part in parts),
        pieces=[piece for part in parts for piece in part.pieces],
        score=sum(positional) / len(positional) if positional else sum(part.score for part in parts) / len(parts),
        positional_scores=positional,
        source_pieces=[piece for part in parts for piece in part.source_pieces],
    )


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
        self.tokens += len(record.translations[0].pieces) + 1 if record.translations else 0

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
