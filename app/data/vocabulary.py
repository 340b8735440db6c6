"""Pieces <-> ids, in fairseq's `dict.txt` format."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import DataError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
OVERWRITE = " #fairseq:overwrite"  # at a line's end: this piece may stand twice, and the later line counts


class Vocabulary:
    """Pieces and their ids: `<s> <pad> </s> <unk>` are 0-3, then the pieces in the file's order."""

    bos, pad, eos, unk = 0, 1, 2, 3

    def __init__(self, pieces: list[str], counts: list[int]):
        self.pieces = [*SPECIALS, *pieces]
        self.counts = [1, 1, 1, 1, *counts]
        self._ids = {piece: i for i, piece in enumerate(self.pieces)}

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        threshold: int = 0,
        nwords: int = 0,
        padding_factor: int = 8,
        symbols: Sequence[str] = (),
    ) -> "Vocabulary":
        """The pieces seen at least `threshold` times, most frequent first, ties in alphabetical order.

        At most `nwords` of them, the four specials counted (0: no limit); then `madeupword0000`, ... with count 0 until
        the size is a multiple of `padding_factor`, which matrix units like. `symbols`, such as `<mask>`, come last,
        with count 1, and count in the size.
        """
        kept = [(piece, n) for piece, n in counts.items() if n >= threshold and piece not in (*SPECIALS, *symbols)]
        kept.sort(key=lambda entry: (-entry[1], entry[0]))
        if nwords > 0:
            kept = kept[: max(0, nwords - len(SPECIALS))]
        missing = -(len(kept) + len(SPECIALS) + len(symbols)) % padding_factor
        kept += [(f"madeupword{i:04d}", 0) for i in range(missing)]
        kept += [(symbol, 1) for symbol in symbols]
        return cls([piece for piece, _ in kept], [n for _, n in kept])

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read a `dict.txt`: `piece count` a line, ids from 4 on in the order of lines. `DataError` names file:line."""
        try:
            text = path.read_bytes().decode()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give the path of a dict.txt") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
        pieces: list[str] = []
        counts: list[int] = []
        seen = set(SPECIALS)
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
            entry = line.removesuffix("\r")
            overwrites = entry.endswith(OVERWRITE)
            piece, _, count = entry.removesuffix(OVERWRITE).rpartition(" ")
            if not piece or not count.isdecimal():
                raise DataError(f"{path}:{number}: {line!r} is not `piece count`; mend the line")
            if piece in seen and not overwrites:
                raise DataError(f"{path}:{number}: piece {piece!r} stands twice; remove one or add{OVERWRITE!r}")
            seen.add(piece)
            pieces.append(piece)
            counts.append(int(count))
        return cls(pieces, counts)

    def save(self, path: Path) -> None:
        """Write `dict.txt` under a temporary name and rename it, so that no reader ever sees half a file."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        seen = set(SPECIALS)
        with temporary.open("wb") as file:
            for piece, count in zip(self.pieces[len(SPECIALS) :], self.counts[len(SPECIALS) :]):
                file.write(f"{piece} {count}{OVERWRITE if piece in seen else ''}\n".encode())
                seen.add(piece)
        temporary.replace(path)

    def __len__(self) -> int:
        return len(self.pieces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.pieces == other.pieces

    def __hash__(self) -> int:
        return hash(tuple(self.pieces))

    def index(self, piece: str) -> int:
        """The piece's id; `unk` for a piece that is not in the vocabulary."""
        return self._ids.get(piece, self.unk)

    def encode(self, pieces: Iterable[str], append_eos: bool = True) -> NDArray[np.int32]:
        """[number of pieces (+ 1)] ids."""
        ids = [self._ids.get(piece, self.unk) for piece in pieces]
        return np.array([*ids, self.eos] if append_eos else ids, dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The pieces of these ids, `<s>` and `</s>` left out."""
        return [self.pieces[i] for i in ids if i not in (self.bos, self.eos)]
