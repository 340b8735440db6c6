"""Tables of figures that lose nothing in a narrow terminal."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table

GAP = 2  # columns of the terminal behind each of the table's


class Figures:
    """A table for rich to print: columns narrow to their longest word before any word is folded, and none is cut."""

    def __init__(self, *names: str, title: str = ""):
        self.title = title
        self.rows: list[Sequence[str]] = [names]

    def add_row(self, *cells: str) -> None:
        """A row may end early."""
        self.rows.append([*cells, *[""] * (len(self.rows[0]) - len(cells))])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(zip(*self.rows, strict=True))
        fitted = widths(columns, options.max_width - GAP * len(columns))
        shown = [Column(cells[0], width=width, overflow="fold") for cells, width in zip(columns, fitted, strict=True)]
        table = Table(*shown, title=self.title or None, title_justify="left", box=None, padding=(0, GAP, 0, 0))
        for row in self.rows[1:]:
            table.add_row(*row)
        yield table


def widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """As wide as the longest cell where there is room for that, else as the longest word, else as there is room."""
    wanted = [max(map(len, cells)) for cells in columns]
    found = [max(len(word) for cell in cells for word in [*cell.split(), "-"]) for cells in columns]
    while sum(found) > max(room, len(found)):
        found[found.index(max(found))] -= 1
    while sum(found) < min(room, sum(wanted)):
        lacking = [want - width for want, width in zip(wanted, found, strict=True)]
        found[lacking.index(max(lacking))] += 1
    return found
