"""Pieces <-> ids, in fairseq's `dict.txt` format."""


class Vocabulary:
    """Pieces and their ids: `<s> <pad> </s> <unk>` are 0-3, then the pieces in the file's order."""

    bos, pad, eos, unk = 0, 1, 2, 3

    def __init__(self, pieces: list[str], counts: list[int]):
        self.pieces = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
        self.counts = [1, 1, 1, 1, *counts]

    def __len__(self) -> int:
        return len(self.pieces)
