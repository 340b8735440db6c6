"""Embeddings of a large vocabulary in which rare words get less width (Baevski and Auli, 2019, sec. 3)."""

import torch
from torch import Tensor, nn

from app.errors import ConfigError


class AdaptiveInput(nn.Module):
    """Words by falling frequency in bands that end at each cutoff; band i has width `input_dim // factor ** i`.

    Every band is projected to `embedding_dim`. fairseq gives word 1 of *each* band padding's treatment (it starts at
    zero and never learns); here only padding itself has that.
    """

    def __init__(
        self, vocab_size: int, input_dim: int, embedding_dim: int, cutoff: list[int], factor: float, padding_idx: int
    ):
        super().__init__()
        self.cutoff = band_ends(cutoff, vocab_size, "adaptive_input_cutoff")
        self.embedding_dim, self.padding_idx = embedding_dim, padding_idx
        self.embeddings = nn.ModuleList()
        for i, (start, end) in enumerate(zip([0, *self.cutoff], self.cutoff)):
            width = int(input_dim // factor**i)
            words = nn.Embedding(end - start, width, padding_idx if i == 0 else None)
            projection = nn.Linear(width, embedding_dim, bias=False)
            nn.init.normal_(words.weight, std=width**-0.5)
            nn.init.xavier_uniform_(projection.weight)
            self.embeddings.append(nn.Sequential(words, projection))
        with torch.no_grad():
            self.weights_of_band(0)[0][padding_idx] = 0

    def weights_of_band(self, band: int) -> tuple[Tensor, Tensor]:
        """The band's words [words, width] and projection [embedding_dim, width], for a softmax that shares them."""
        words, projection = self.embeddings[band].children()
        assert isinstance(words, nn.Embedding)
        assert isinstance(projection, nn.Linear)
        return words.weight, projection.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]."""
        out = self.weights_of_band(0)[1].new_zeros(*tokens.shape, self.embedding_dim)
        for start, end, band in zip([0, *self.cutoff], self.cutoff, self.embeddings):
            inside = (tokens >= start) & (tokens < end)
            vectors = band(tokens[inside] - start)
            out = out.to(vectors.dtype).masked_scatter(inside[..., None], vectors)
        return out


def band_ends(cutoff: list[int], vocab_size: int, field: str) -> list[int]:
    """Where each part of the vocabulary ends. Raises `ConfigError` for a cutoff of the model's `field` beyond it."""
    if cutoff[-1] > vocab_size:
        raise ConfigError([f"model.{field}={cutoff}: the vocabulary has {vocab_size} words; lower the cutoffs"])
    return cutoff if cutoff[-1] == vocab_size else [*cutoff, vocab_size]
