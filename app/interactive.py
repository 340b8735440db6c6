"""`python -m app.interactive checkpoint=outputs/RUN`: lines in, lines out, each at once."""

import sys
import time
from collections.abc import Iterator
from typing import Any

from app.cli import command
from app.errors import DataError
from app.lines import opened_output, read_lines
from app.roots import InteractiveConfig


def run(cfg: InteractiveConfig, plugins: dict[str, Any]) -> None:
    """Translate lines as they come, until their end (Ctrl-D) or Ctrl-C."""
    from app.formats import FORMATS, Record
    from app.inference import load_generator, translated

    _, generator = load_generator(cfg, plugins)
    try:
        with opened_output(None) as out:
            for number, line in enumerate(typed_lines()):
                start = time.perf_counter()
                try:
                    (translations,) = translated(generator, [line], cfg.long_lines == "split")
                except DataError as error:  # this line cannot be translated; the next one may be
                    print(f"app.interactive: {error}", file=sys.stderr)
                    translations = []
                record = Record(number, line, translations, seconds=time.perf_counter() - start)
                out.write(FORMATS[cfg.output](record))
                out.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)


def typed_lines() -> Iterator[str]:
    """Lines from a person, with a prompt and the keys to edit a line; or from a pipe, as they arrive."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield from read_lines("-")
        return
    import readline  # noqa: F401  gives `input` its keys

    print("Type a line to translate; Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            yield input("> ")
        except EOFError:
            print(file=sys.stderr)
            return


main = command("interactive", run)

if __name__ == "__main__":
    main()
