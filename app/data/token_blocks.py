"""One text as blocks of tokens: where blocks end, and what a model sees and predicts in each."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from app.data.batch import Batch
from app.data.store import Store
from app.data.vocabulary import Vocabulary

BREAK_MODES = ("none", "complete", "complete_doc", "eos")
ROWS = 1 << 20  # rows that are cut together
TARGETS = ("past", "self", "future")  # what is predicted: the token before the newest one, itself, the one after it

Ids = NDArray[np.int64]


def block_slices(lengths: Ids, block_size: int, break_mode: str) -> Ids:
    """[rows] lengths -> [N, 2] first token and end of each block, in the rows' tokens one after another.

    none: `block_size` tokens each, wherever lines end; complete: as many whole lines as fit, at least one;
    complete_doc: the same, but no block holds lines of two documents, which an empty line (eos alone) parts and which
    stands in no block; eos: a line each.
    """
    if break_mode == "none":
        return even_slices(int(lengths.sum()), block_size)
    ends = np.cumsum(lengths, dtype=np.int64)
    if break_mode == "eos":
        return np.stack([ends - lengths, ends], axis=1)
    slices = []
    borders = np.flatnonzero(lengths == 1) if break_mode == "complete_doc" else np.empty(0, dtype=np.int64)
    for first, last in zip([0, *(borders + 1)], [*borders, len(lengths)]):
        slices += (
            list(_whole_rows(ends[first:last], int(ends[first] - lengths[first]), block_size)) if first < last else []
        )
    return np.array(slices, dtype=np.int64).reshape(-1, 2)


def even_slices(count: int, block_size: int) -> Ids:
    """[N, 2] first token and end of each block of `block_size`, the last perhaps smaller, in `count` tokens."""
    starts = np.arange(0, count, block_size)
    return np.stack([starts, np.minimum(starts + block_size, count)], axis=1)


def _whole_rows(ends: Ids, start: int, block_size: int) -> Iterator[tuple[int, int]]:
    """Blocks of as many rows as fit, at least one; `start` is the first row's first token, `ends` [rows] their ends."""
    row = 0
    while row < len(ends):
        row = max(row + 1, int(np.searchsorted(ends, start + block_size, side="right")))
        yield start, int(ends[row - 1])
        start = int(ends[row - 1])


def slices_of_rows(store: Store, first: int, end: int, block_size: int, break_mode: str) -> Ids:
    """The blocks of rows `first` to `end` of a store, in its tokens. Only where lines matter are they looked at.

    They are looked at in parts, so that memory is that of the blocks.
    """
    store, parts = store.unmapped(), [np.empty((0, 2), dtype=np.int64)]
    if first < end and break_mode == "none":
        (start, _), (_, stop) = store.bounds(np.array([first, end - 1]))
        return even_slices(int(stop - start), block_size) + np.int64(start)
    while first < end:
        until = min(first + max(ROWS, 2 * block_size), end)
        lengths, start = store.lengths_between(first, until), store.bounds(np.array([first]))[0]
        slices = block_slices(lengths, block_size, break_mode)
        ends = np.cumsum(lengths)
        if break_mode != "eos" and until < end and len(slices) and slices[-1, 1] == ends[-1]:
            row = int(np.searchsorted(ends, slices[-1, 0], side="right"))  # where a block starts that may go on
            slices, until = (slices[:-1], first + row) if row else (slices, until)
        parts.append(slices + start)
        first = until
    return np.concatenate(parts)


@dataclass(frozen=True)
class BlockDataset:
    """Sample i is the block `slices[i]` of a store's tokens, and up to `context` tokens before it, which are only seen.

    A model sees a block moved right by one: in front stands the token before it, or eos where a line starts.
    """

    store: Store
    slices: Ids  # [N, 2]
    weights: NDArray[np.float64]  # [N] how often a sample is seen in an epoch of training
    target: str  # one of TARGETS
    context: int  # tokens before each block whose prediction does not count
    add_bos: bool  # bos in front of each block, in the target too
    left_out: dict[str, int]  # reason: number of lines or blocks that are not used

    def __len__(self) -> int:
        return len(self.slices)

    def contexts(self, slices: Ids) -> Ids:
        """[B, 2] blocks -> [B] tokens that are only seen; fewer than `context` where the text starts."""
        return np.minimum(slices[:, 0], self.context)

    @property
    def source_lengths(self) -> Ids:
        return self.slices[:, 1] - self.slices[:, 0] + self.contexts(self.slices) + self.add_bos

    @property
    def target_lengths(self) -> Ids:
        return self.source_lengths

    def collate(self, samples: Ids) -> Batch:
        """[B] block numbers -> tensors [B, T]; prev_output_tokens and src_tokens are the same."""
        slices = self.slices[samples]
        contexts = self.contexts(slices)
        lengths = slices[:, 1] - slices[:, 0] + contexts
        tokens = self._with_two_before(slices[:, 0] - contexts, lengths)
        source, target = tokens[:, 1:-1], tokens[:, (first := TARGETS.index(self.target)) : first + lengths.max()]
        padding = np.arange(lengths.max()) >= lengths[:, None]
        source, target = (np.where(padding, Vocabulary.pad, side) for side in (source, target))
        if self.add_bos:
            source, target = (
                np.pad(side, ((0, 0), (1, 0)), constant_values=Vocabulary.bos) for side in (source, target)
            )
        unscored = np.where(contexts, contexts + self.add_bos, 0)
        target[np.arange(target.shape[1]) < unscored[:, None]] = Vocabulary.pad
        src_tokens = torch.from_numpy(source)
        return Batch(
            ids=torch.from_numpy(samples),
            src_tokens=src_tokens,
            src_lengths=torch.from_numpy(lengths + self.add_bos),
            prev_output_tokens=src_tokens,
            target=torch.from_numpy(target),
            num_tokens=int((lengths + self.add_bos - unscored).sum()),
        )

    def _with_two_before(self, starts: Ids, lengths: Ids) -> Ids:
        """[B, 2 + T]: each block with the two tokens before it. Where a line starts these are pad and eos.

        Behind a block's end stands anything.
        """
        places = starts[:, None] + np.arange(-2, lengths.max())
        inside = np.clip(places, 0, len(self.store.ids) - 1)
        tokens = self.store.take(self.store.ids, inside.ravel()).reshape(places.shape).astype(np.int64)
        into_line = starts - self.store.bounds(self.store.rows_at(starts))[0]
        tokens[into_line == 0, :2] = Vocabulary.pad, Vocabulary.eos
        tokens[into_line == 1, 0] = Vocabulary.eos
        return tokens
