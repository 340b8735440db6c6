"""`python -m app.generate checkpoint=outputs/RUN split=test`: translate a split, a file or standard input, in order."""

import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from app.cli import command
from app.config import GenerateConfig
from app.errors import DataError
from app.lines import opened_output, read_lines
from app.scorers.report import as_table

if TYPE_CHECKING:  # torch is imported when there is something to do
    from app.interfaces import Task

log = logging.getLogger("generate")


def run(cfg: GenerateConfig, plugins: dict[str, Any]) -> float | None:
    """Translate; where there are references, score, and return the first score."""
    from app.evaluation import score_lines
    from app.formats import FORMATS
    from app.inference import Rate, load_generator, progress, translate

    task, generator = load_generator(cfg, plugins["search"], cfg.data)
    lines, references, total = inputs(cfg, task)
    translations: list[str] = []
    rate = Rate()
    with opened_output(cfg.output_file, cfg.input) as out:
        shown = cfg.output_file is not None or not sys.stdout.isatty()
        for record in progress(translate(generator, lines, references, cfg.buffer_size), total, shown):
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


def inputs(cfg: GenerateConfig, task: "Task") -> tuple[Iterable[str], list[str] | None, int | None]:
    """The lines to translate, their references, and how many they are, as far as these are known."""
    if cfg.input is not None:
        return read_lines(cfg.input), None, None
    pair = task.references(cfg.split)
    if pair is None:
        raise DataError(f"split={cfg.split}: this task has no text for it; give input=FILE")
    source, references = pair
    return source, references, len(source)


main = command("generate", run)

if __name__ == "__main__":
    main()
