"""Sentence pairs whose decoder input is a noised target: what models that refine drafts learn from."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from app.data.batch import Batch
from app.data.dataset import Samples
from app.data.large import Lengths, Weights
from app.data.vocabulary import Vocabulary

Tokens = NDArray[np.int64]  # [B, T]: bos, pieces, eos, padding at the end
Noise = Callable[[Tokens, np.random.Generator], Tokens]


def no_noise(target: Tokens, rng: np.random.Generator) -> Tokens:
    """The target as it is."""
    return target


def full_mask(target: Tokens, rng: np.random.Generator) -> Tokens:
    """<unk> in place of every piece."""
    return np.where(pieces(target), Vocabulary.unk, target)


def random_mask(target: Tokens, rng: np.random.Generator) -> Tokens:
    """<unk> in place of 1 to all pieces, all numbers alike (Ghazvininejad et al., 2019, sec. 3.1)."""
    inner = pieces(target)
    counts = np.floor(1 + inner.sum(1) * rng.random(len(target)))
    return np.where(inner & (ranks(inner, rng) < counts[:, None]), Vocabulary.unk, target)


def random_delete(target: Tokens, rng: np.random.Generator) -> Tokens:
    """Any number of pieces, at least one, taken out: [B, T'], all numbers alike (Gu et al., 2019, sec. 4.1)."""
    inner = pieces(target)
    counts = np.floor(inner.sum(1) * rng.random(len(target)))  # that stay
    gone = (target == Vocabulary.pad) | inner & (ranks(inner, rng) >= counts[:, None])
    order = np.argsort(gone, axis=1, kind="stable")[:, : (~gone).sum(1).max()]
    kept = np.take_along_axis(target, order, axis=1)
    return np.where(np.take_along_axis(gone, order, axis=1), Vocabulary.pad, kept)


NOISES: dict[str, Noise] = {
    "random_delete": random_delete,
    "random_mask": random_mask,
    "full_mask": full_mask,
    "no_noise": no_noise,
}


def pieces(target: Tokens) -> NDArray[np.bool_]:
    """Where there is neither bos nor eos nor padding."""
    return ~np.isin(target, (Vocabulary.bos, Vocabulary.eos, Vocabulary.pad))


def ranks(inner: NDArray[np.bool_], rng: np.random.Generator) -> Tokens:
    """A random order of each row's pieces, from 0; what is no piece comes after them."""
    draws = np.where(inner, rng.random(inner.shape), np.inf)
    return np.argsort(np.argsort(draws, axis=1), axis=1)


@dataclass(frozen=True)
class DraftSamples:
    """Pairs with bos in front of both sides; `prev_output_tokens` is a draft, a function of (seed, epoch, batch)."""

    pairs: Samples
    noise: Noise
    seed: int
    epoch: int = 0

    def in_epoch(self, epoch: int) -> "DraftSamples":
        return replace(self, epoch=epoch)

    @property
    def weights(self) -> Weights:
        return self.pairs.weights

    @property
    def source_lengths(self) -> Lengths:
        return self.pairs.source_lengths + 1

    @property
    def target_lengths(self) -> Lengths:
        return self.pairs.target_lengths + 1

    def collate(self, samples: NDArray[np.int64]) -> Batch:
        batch = self.pairs.collate(samples)
        target = with_bos(batch.target)
        rng = np.random.default_rng([self.seed, self.epoch, *samples.tolist()])
        return Batch(
            ids=batch.ids,
            src_tokens=with_bos(batch.src_tokens),
            src_lengths=batch.src_lengths + 1,
            prev_output_tokens=torch.from_numpy(self.noise(target.numpy(), rng)),
            target=target,
            num_tokens=batch.num_tokens + len(batch),
        )


def with_bos(tokens: torch.Tensor) -> torch.Tensor:
    """[B, T] -> [B, T + 1]."""
    return torch.nn.functional.pad(tokens, (1, 0), value=Vocabulary.bos)
