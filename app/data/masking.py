"""Tokens that are hidden, for a model to guess (Devlin et al., 2019, sec. 3.1; Liu et al., 2019, sec. 3.1)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from app.data.batch import Batch
from app.data.token_blocks import BlockDataset, Ids
from app.data.vocabulary import SPECIALS, Vocabulary

MASK = "<mask>"
SEEDS = 1e6  # a sample's generator has a seed below this; a float, for fairseq rounds hashes so


@dataclass(frozen=True)
class Masking:
    """fairseq's rules, number for number: the same seeds draw the same masks."""

    seed: int
    mask_idx: int  # the id that stands for a hidden token
    mask_prob: float  # share of tokens, or words, to be guessed
    leave_unmasked_prob: float  # share of these that are shown as they are
    random_token_prob: float  # share of these that are shown as some other token
    mask_multiple_length: int  # tokens, or words, that are chosen together
    mask_stdev: float  # standard deviation of their number; 0: always mask_multiple_length
    frequencies: NDArray[np.float64]  # [V] how often each id is put in a token's place, up to a factor
    word_begins: NDArray[np.bool_] | None  # [V] ids that start a word: whole words are chosen; None: tokens

    @classmethod
    def replacement_frequencies(cls, vocabulary: Vocabulary, freq_weighted: bool) -> NDArray[np.float64]:
        """[V]: as often as in the training text, or all alike; never one of the four specials."""
        weights = np.array(vocabulary.counts if freq_weighted else np.ones(len(vocabulary)), dtype=np.float64)
        weights[: len(SPECIALS)] = 0
        return weights

    def apply(self, tokens: Ids, epoch: int, sample: int) -> tuple[Ids, Ids]:
        """[T] -> what the model sees [T], and what it is to guess [T], which is padding where nothing is asked.

        A pure function of the seed, the epoch and the sample's number. The first of `tokens` must start a word.
        """
        rng = np.random.default_rng(int(hash((self.seed, epoch, sample)) % SEEDS))
        lengths = self._lengths(tokens)
        chosen = self._choose(len(lengths), rng)
        kept, random = self._spare(chosen, rng)
        asked, hidden, random = (np.repeat(units, lengths) for units in (chosen, chosen & ~kept, random))
        target = np.where(asked, tokens, Vocabulary.pad)
        shown = np.where(hidden, self.mask_idx, tokens)
        if random.any():
            frequencies = self.frequencies / self.frequencies.sum()
            shown[random] = rng.choice(len(frequencies), int(random.sum()), p=frequencies)
        return shown, target

    def _lengths(self, tokens: Ids) -> Ids:
        """[units] tokens of each unit that is masked as a whole."""
        if self.word_begins is None:
            return np.ones(len(tokens), dtype=np.int64)
        starts = np.flatnonzero(self.word_begins[tokens])
        return np.diff(starts, append=len(tokens))

    def _choose(self, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """[units] which are to be guessed: runs from random places, on average `mask_prob` of all, but for overlaps."""
        runs = int(self.mask_prob * count / self.mask_multiple_length + rng.random())
        starts = rng.choice(count, runs, replace=False)
        lengths = np.full(runs, self.mask_multiple_length)
        if self.mask_stdev > 0:
            drawn = rng.normal(self.mask_multiple_length, self.mask_stdev, size=runs)
            lengths = np.maximum(np.rint(drawn).astype(np.int64), 0)
        places = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, lengths)] or [starts])
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[places[places < count]] = True
        return chosen

    def _spare(self, chosen: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray[np.bool_], ...]:
        """[units] those of the chosen that are shown as they are, and those that another token stands for."""
        nothing = np.zeros_like(chosen)
        either = self.random_token_prob + self.leave_unmasked_prob
        if either == 0:
            return nothing, nothing
        spared = chosen & (rng.random(len(chosen)) < either)
        if self.random_token_prob == 0:
            return spared, nothing
        if self.leave_unmasked_prob == 0:
            return nothing, spared
        leave = rng.random(len(chosen)) < self.leave_unmasked_prob / either
        return spared & leave, spared & ~leave


@dataclass(frozen=True)
class MaskedBlocks:
    """The blocks of a text with bos in front, some of their tokens hidden: others in every epoch."""

    blocks: BlockDataset  # whose target is the text itself
    masking: Masking
    epoch: int = 0

    def in_epoch(self, epoch: int) -> "MaskedBlocks":
        return replace(self, epoch=epoch)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def left_out(self) -> dict[str, int]:
        return self.blocks.left_out

    @property
    def weights(self) -> NDArray[np.float64]:
        return self.blocks.weights

    @property
    def source_lengths(self) -> Ids:
        return self.blocks.source_lengths

    @property
    def target_lengths(self) -> Ids:
        return self.blocks.target_lengths

    def collate(self, samples: Ids) -> Batch:
        """[B] block numbers -> tensors [B, T]; `target` is padding where nothing is asked, `num_tokens` counts all."""
        batch = self.blocks.collate(samples)
        lengths = batch.src_lengths.tolist()
        source = np.full(batch.target.shape, Vocabulary.pad, dtype=np.int64)
        target = source.copy()
        for row, (tokens, length) in enumerate(zip(batch.target.numpy(), lengths, strict=True)):
            masked = self.masking.apply(tokens[:length], self.epoch, int(samples[row]))
            source[row, :length], target[row, :length] = masked
        shown = torch.from_numpy(source)
        return replace(batch, src_tokens=shown, prev_output_tokens=shown, target=torch.from_numpy(target))
