"""Tables of figures in terminals of any width."""

import io

import pytest
from rich.console import Console

from benchmarks.tables import Figures

NAMES = ("row", "target tokens a second", "forward / backward / optimizer")
ROWS = [("A bf16, attention as fairseq's", "4,256-5,224", "55 / 43 / 2"), ("iterative_nonautoregressive_transformer",)]


def printed(width: int) -> str:
    table = Figures(*NAMES)
    for row in ROWS:
        table.add_row(*row)
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [160, 80, 62, 40, 20])
def test_nothing_is_cut(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    everything = "".join([*NAMES, *(cell for row in ROWS for cell in row)])
    assert sorted("".join(text.split())) == sorted("".join(everything.split()))


def test_words_are_whole_where_there_is_room() -> None:
    assert len(printed(160).splitlines()) == 3
    text = printed(66)
    assert {word for row in (NAMES, *ROWS) for cell in row for word in cell.split()} <= set(text.split())
    assert len(text.splitlines()) > 3
