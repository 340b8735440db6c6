"""A piece a byte."""

import re
from dataclasses import dataclass

from app.tokenizers import Tokenizer

PIECES = [f"<0x{value:02X}>" for value in range(256)]
PIECE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass
class ByteConfig:
    """No settings."""


class Byte(Tokenizer):
    """One piece for every byte of the line's UTF-8, `<0x41>` for A. Reversible for any text; nothing is unknown."""

    def __init__(self, cfg: ByteConfig):
        super().__init__(cfg)

    def encode(self, line: str) -> list[str]:
        return [PIECES[value] for value in line.encode()]

    def decode(self, pieces: list[str]) -> str:
        """Bytes that are not UTF-8 become U+FFFD; pieces that are no bytes (`<unk>`) are left out."""
        values = bytes(int(match[1], 16) for piece in pieces if (match := PIECE.fullmatch(piece)))
        return values.decode(errors="replace")
