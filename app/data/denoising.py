"""Blocks of a text that are to be restored from what noise left of them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from app.data.batch import Batch
from app.data.noise import Draws, Noise
from app.data.store import Store
from app.data.vocabulary import Vocabulary

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class DenoisingDataset:
    """Sample i is the block `slices[i]` of a store's tokens: its lines without their eos, between bos and eos.

    What is seen of it is a pure function of (seed, epoch, i). A line is a sentence: fairseq takes eos as the sign of a
    sentence's end after it has removed every eos, and so permutes sentences of GPT-2's pieces only.
    """

    store: Store
    slices: Ids  # [N, 2] first token and end of each block
    weights: NDArray[np.float64]  # [N] how often a sample is seen in an epoch of training
    left_out: dict[str, int]  # reason: number of lines or blocks that are not used
    noise: Noise
    seed: int
    max_source_positions: int  # what noise made longer than this is cut before its end
    language: int | None = None  # the symbol that stands behind eos; None: nothing does
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.slices)

    def in_epoch(self, epoch: int) -> "DenoisingDataset":
        return replace(self, epoch=epoch)

    @property
    def _language(self) -> Tensor:
        return torch.tensor([] if self.language is None else [self.language], dtype=torch.long)

    @property
    def source_lengths(self) -> Ids:
        """[N] before the noise, which may make a sample longer or shorter."""
        line_ends = self.store.offsets[1:]
        first, last = (np.searchsorted(line_ends, self.slices[:, side], side="right") for side in (0, 1))
        return self.slices[:, 1] - self.slices[:, 0] - (last - first) + 2 + len(self._language)

    @property
    def target_lengths(self) -> Ids:
        return self.source_lengths

    def collate(self, samples: Ids) -> Batch:
        """[B] block numbers -> tensors, padded at the end of rows."""
        blocks = [self.block(int(sample)) for sample in samples]
        seen = [self._disturbed(int(sample), *block) for sample, block in zip(samples, blocks, strict=True)]
        clean = [torch.cat([tokens, self._language]) for tokens, _ in blocks]
        return Batch(
            ids=torch.from_numpy(samples),
            src_tokens=_padded(seen),
            src_lengths=torch.tensor([len(tokens) for tokens in seen]),
            prev_output_tokens=_padded([tokens.roll(1) for tokens in clean]),  # the last symbol moved to the front
            target=_padded(clean),
            num_tokens=sum(len(tokens) for tokens in clean),
        )

    def block(self, sample: int) -> tuple[Tensor, Tensor]:
        """The sample's tokens [T], and where its lines end [T]."""
        start, end = self.slices[sample]
        offsets = self.store.offsets
        rows = slice(*np.searchsorted(offsets[1:], (start, end), side="right"))
        eos = offsets[1:][rows] - 1 - start  # places in the block
        ids = self.store.ids[start:end].astype(np.int64)
        ends = np.zeros(len(ids), dtype=bool)
        ends[eos[eos > 0] - 1] = True
        tokens = [Vocabulary.bos, *np.delete(ids, eos), Vocabulary.eos]
        return torch.tensor(np.array(tokens)), torch.tensor([False, *np.delete(ends, eos), False])

    def _disturbed(self, sample: int, tokens: Tensor, ends: Tensor) -> Tensor:
        seen = self.noise(tokens, ends, Draws.of(self.seed, self.epoch, sample))
        most = self.max_source_positions - len(self._language)
        kept = seen if len(seen) <= most else torch.cat([seen[: most - 1], seen[-1:]])
        return torch.cat([kept, self._language])


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=Vocabulary.pad)
