"""`python -m app.generate checkpoint=outputs/RUN split=test`: translate a split, a file or standard input, in order."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli import command
from app.errors import DataError
from app.lines import opened_output, read_lines, whole_lines
from app.roots import GenerateConfig
from app.scorers.report import as_table

if TYPE_CHECKING:  # torch is imported when there is something to do
    from app.interfaces import Task

log = logging.getLogger("generate")


def run(cfg: GenerateConfig, plugins: dict[str, Any]) -> float | None:
    """Translate; where there are references, score, and return the first score."""
    from app.evaluation import score_lines
    from app.formats import FORMATS
    from app.inference import Rate, load_generator, progress, translate

    task, generator = load_generator(cfg, plugins, cfg.data)
    lines, references, total = inputs(cfg, task)
    translations: list[str] = []
    rate = Rate()
    with opened_output(cfg.output_file, cfg.input, cfg.resume) as out:
        rest, done = iter(lines), 0
        if cfg.resume and cfg.output_file is not None:
            done = skipped(rest, cfg.output_file)
            translations = written(cfg, done) if references is not None else []
            log.info("%s holds %d lines already", cfg.output_file, done)
        missing = None if references is None else references[done:]
        shown = cfg.output_file is not None or not sys.stdout.isatty()
        records = translate(generator, rest, missing, cfg.buffer_size, cfg.long_lines == "split", done)
        for record in progress(records, None if total is None else total - done, shown):
            out.write(FORMATS[cfg.output](record))
            rate.add(record)
            if references is not None:
                translations.append(record.text)
    rate.report()
    if cfg.output_file is not None:
        log.info("written to %s", cfg.output_file)
    if references is None or not plugins["scorer"]:
        return None
    scores = score_lines(translations, references, {name: make() for name, make in plugins["scorer"].items()})
    print(as_table(scores), file=sys.stderr if cfg.output_file is None else sys.stdout)
    return scores[0].value


def skipped(lines: Iterator[str], output_file: str) -> int:
    """Leave out the lines that the file holds the outputs of; how many they are."""
    done = whole_lines(output_file)
    if (there := sum(1 for _ in islice(lines, done))) < done:
        raise DataError(f"output_file={output_file}: holds {done} lines, more than the {there} of the input; remove it")
    return done


def written(cfg: GenerateConfig, count: int) -> list[str]:
    """The translations in the first `count` lines of the output file."""
    assert cfg.output_file is not None
    lines = islice(read_lines(cfg.output_file), count)
    if cfg.output == "text":
        return list(lines)
    return ["".join(t["text"] for t in json.loads(line)["translations"][:1]) for line in lines]


def inputs(cfg: GenerateConfig, task: "Task") -> tuple[Iterable[str], list[str] | None, int | None]:
    """The lines to translate, their references, and how many they are, as far as these are known."""
    if cfg.input is not None:
        plain = cfg.input != "-" and not cfg.input.endswith(".gz") and Path(cfg.input).is_file()
        return read_lines(cfg.input), None, sum(1 for _ in Path(cfg.input).open("rb")) if plain else None
    pair = task.references(cfg.split)
    if pair is None:
        raise DataError(f"split={cfg.split}: this task has no text for it; give input=FILE")
    source, references = pair
    return source, references, len(source)


main = command("generate", run)

if __name__ == "__main__":
    main()
