"""Sentences, alone or several joined, with a class or a number each; or with candidates of which one is right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from app.data.batch import Batch
from app.data.store import Store
from app.data.token_blocks import Ids
from app.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Join:
    """How texts become one row, as in fairseq: `<s> first text </s> </s> second text </s>` with bos and eos."""

    init_token: int | None  # in front of the first text
    separator_token: int | None  # in front of every further one
    longest: int | None  # what is behind this many tokens is cut off; None: nothing is
    longest_first: int | None = None  # the same for the first text, `init_token` counted

    def row(self, texts: Sequence[Ids]) -> Ids:
        """Ids of each text, eos at its end, -> all of them [T]."""
        parts = [text if (token := self._before(i)) is None else np.append(token, text) for i, text in enumerate(texts)]
        return np.concatenate([parts[0][: self.longest_first], *parts[1:]])[: self.longest]

    def lengths(self, lengths: Sequence[Ids]) -> Ids:
        """[N] ids of each text in N rows -> [N] ids of the rows."""
        parts = [length + (self._before(i) is not None) for i, length in enumerate(lengths)]
        if self.longest_first is not None:
            parts[0] = np.minimum(parts[0], self.longest_first)
        joined: Ids = np.sum(parts, axis=0)
        return joined if self.longest is None else np.minimum(joined, self.longest)

    def _before(self, number: int) -> int | None:
        return self.init_token if number == 0 else self.separator_token


@dataclass(frozen=True)
class SentenceDataset:
    """Sample i is row `rows[i]` of all stores: K candidates (one, where there is nothing to choose), each joined texts.

    A batch of B samples has B * K rows, the candidates of a sample side by side, and a `target` [B].
    """

    candidates: tuple[tuple[Store, ...], ...]  # the texts of each
    labels: NDArray[np.int64] | NDArray[np.float32]  # [rows] classes, numbers, or which candidate is right
    join: Join
    rows: Ids  # [N] the samples that are used
    left_out: dict[str, int]  # reason: number of samples that are not used

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def weights(self) -> NDArray[np.float64]:
        return np.ones(len(self.rows))

    @property
    def source_lengths(self) -> Ids:
        """[N] positions of a sample: those of its longest candidate, for each of them."""
        return len(self.candidates) * longest_of(self.candidates, self.join)[self.rows]

    @property
    def target_lengths(self) -> Ids:
        return np.ones(len(self.rows), dtype=np.int64)

    def collate(self, samples: Ids) -> Batch:
        """[B] sample numbers -> tensors."""
        rows = self.rows[samples]
        joined = [self.join.row([store[int(row)] for store in texts]) for row in rows for texts in self.candidates]
        return sentence_batch(joined, samples, self.labels[rows])


def longest_of(candidates: tuple[tuple[Store, ...], ...], join: Join) -> Ids:
    """[rows] ids of the longest candidate of each row."""
    longest: Ids = np.max([join.lengths([store.lengths for store in texts]) for texts in candidates], axis=0)
    return longest


def sentence_batch(rows: list[Ids], samples: Ids, target: NDArray[np.int64] | NDArray[np.float32]) -> Batch:
    """Rows of ids -> [rows, T]. `target` belongs to `samples`, of which each may have several rows."""
    tensors = [torch.from_numpy(row) for row in rows]
    tokens = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=Vocabulary.pad)
    lengths = torch.tensor([len(row) for row in rows])
    return Batch(
        ids=torch.from_numpy(samples),
        src_tokens=tokens,
        src_lengths=lengths,
        prev_output_tokens=tokens,
        target=torch.from_numpy(target),
        num_tokens=int(lengths.sum()),
    )
