"""MyTokenizer: say here what the pieces are."""

from dataclasses import dataclass

from app.tokenizers import Tokenizer


@dataclass
class MyTokenizerConfig:
    lowercase: bool  # capitals are not told apart


class MyTokenizer(Tokenizer):
    """Pieces are what stands between spaces."""

    def __init__(self, cfg: MyTokenizerConfig):
        super().__init__(cfg)

    def encode(self, line: str) -> list[str]:
        return (line.lower() if self.cfg.lowercase else line).split()

    def decode(self, pieces: list[str]) -> str:
        return " ".join(pieces)
