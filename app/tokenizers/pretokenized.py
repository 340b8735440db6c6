"""Text whose pieces are already set apart by spaces."""

from dataclasses import dataclass

from app.tokenizers import Tokenizer


@dataclass
class PretokenizedConfig:
    """No settings."""


class Pretokenized(Tokenizer):
    """Splits on white space, as fairseq does; lines come back with single spaces."""

    def __init__(self, cfg: PretokenizedConfig):
        super().__init__(cfg)

    def encode(self, line: str) -> list[str]:
        return line.split()

    def decode(self, pieces: list[str]) -> str:
        return " ".join(pieces)
