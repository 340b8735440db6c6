"""Byte-pair encoding with the codes of subword-nmt (Sennrich, Haddow and Birch, 2016)."""

import importlib.util
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigError, DataError
from app.ranges import existing_file
from app.tokenizers import Tokenizer

CODES = "bpe.codes"  # file name in a run directory


@dataclass
class SubwordBPEConfig:
    codes: str  # file that `subword-nmt learn-bpe` wrote
    separator: str  # at the end of a piece that the word goes on after

    def check(self) -> Iterator[str]:
        if importlib.util.find_spec("subword_nmt") is None:
            yield "_target_: subword_bpe needs the package subword-nmt; install it with: pip install 'seqwright[bpe]'"
        yield from existing_file(self, "codes")
        if not self.separator or " " in self.separator:
            yield f"separator={self.separator!r}: must be at least one character, and no space; fairseq's is @@"


class SubwordBPE(Tokenizer):
    """Splits on white space, then words into pieces: `un@@ known`. The text is expected tokenised, as for learn-bpe."""

    def __init__(self, cfg: SubwordBPEConfig):
        super().__init__(cfg)
        self._separator = cfg.separator
        self._codes = ""
        self._bpe: Any = None

    def sources(self) -> list[Path]:
        path = Path(self.cfg.codes)
        if not path.is_file():
            raise ConfigError([f"tokenizer.codes={path}: no such file; give what `subword-nmt learn-bpe` wrote"])
        return [path]

    def train(self, lines: Iterable[str]) -> None:
        """Nothing is learnt here: the codes are read."""
        (path,) = self.sources()
        self._read(path)

    def encode(self, line: str) -> list[str]:
        pieces: list[str] = self._bpe.segment_tokens(line.split())
        return pieces

    def decode(self, pieces: list[str]) -> str:
        return (" ".join(pieces) + " ").replace(self._separator + " ", "").rstrip(" ")

    def save(self, directory: Path) -> None:
        (directory / CODES).write_text(self._codes, encoding="utf-8", newline="\n")

    def load(self, directory: Path) -> None:
        self._read(directory / CODES)

    def _read(self, path: Path) -> None:
        from subword_nmt.apply_bpe import BPE

        try:
            self._codes = path.read_text(encoding="utf-8")
            self._bpe = BPE(io.StringIO(self._codes), separator=self._separator)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); prepare the data again") from None
        except (UnicodeDecodeError, SystemExit):  # the library exits where a line is not two pieces
            raise DataError(f"{path}: not a file of subword-nmt codes; make one with `subword-nmt learn-bpe`") from None
