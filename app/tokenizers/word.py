"""Words, and punctuation marks one by one."""

import re
from dataclasses import dataclass

from app.tokenizers import Tokenizer

SPACE = "▁"  # in front of a piece that follows a space, and of the line's first
PIECES = re.compile(rf"{SPACE}?(?:\w+|[^\w{SPACE}])|{SPACE}")


@dataclass
class WordConfig:
    """No settings."""


class Word(Tokenizer):
    """Runs of letters and digits are pieces, every other character is a piece of its own.

    `Well, go!` is `▁Well , ▁go !`: the mark of a space makes it reversible, for text without U+2581.
    """

    def __init__(self, cfg: WordConfig):
        super().__init__(cfg)

    def encode(self, line: str) -> list[str]:
        return PIECES.findall(SPACE + line.replace(" ", SPACE)) if line else []

    def begins_word(self, piece: str) -> bool:
        return piece.startswith(SPACE)

    def decode(self, pieces: list[str]) -> str:
        return "".join(pieces).removeprefix(SPACE).replace(SPACE, " ")
