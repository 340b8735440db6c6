"""A piece a character."""

from dataclasses import dataclass

from app.tokenizers import Tokenizer

SPACE = "▁"  # stands for a space, since a piece may not hold one


@dataclass
class CharConfig:
    """No settings."""


class Char(Tokenizer):
    """One piece for every Unicode character, U+2581 for a space. Reversible for text without U+2581."""

    def __init__(self, cfg: CharConfig):
        super().__init__(cfg)

    def encode(self, line: str) -> list[str]:
        return list(line.replace(" ", SPACE))

    def decode(self, pieces: list[str]) -> str:
        return "".join(pieces).replace(SPACE, " ")
