"""The decoder of a Transformer, from tokens to features and from features to scores; with an encoder or without."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from app.modules.adaptive_input import AdaptiveInput
from app.modules.adaptive_softmax import AdaptiveSoftmax
from app.modules.attention import KeyValues, additive, visible
from app.modules.embedding import Embedding, EmbeddingConfig
from app.modules.layer_stack import LayerStack
from app.modules.transformer_layer import DecoderLayer, LayerConfig


class Memory(Protocol):
    """What of an encoder's output a decoder sees (`app.interfaces.EncoderOut`)."""

    @property
    def states(self) -> Tensor:
        """[B, S, E]."""

    @property
    def keep(self) -> Tensor:
        """[B, S], False at padding."""


@dataclass
class AdaptiveSoftmaxConfig:
    """Where an adaptive softmax stands in for the output projection."""

    cutoff: list[int]  # words up to each cutoff form a cluster
    dropout: float  # on features and inside the tail
    factor: float  # each tail cluster's width is divided by a further power of this
    tie_weights: bool  # its words' vectors are those of an adaptive input
    tie_proj: bool  # and so are its projections


@dataclass
class DecoderConfig:
    """A stack of decoder layers and what stands before and after it."""

    embedding: EmbeddingConfig
    layer: LayerConfig
    layers: int  # number of layers
    output_dim: int  # width of the features that are projected to the vocabulary
    final_norm: bool  # a layer norm after the last layer
    share_input_output: bool  # one matrix for embeddings and output projection
    adaptive_softmax: AdaptiveSoftmaxConfig | None  # None: an ordinary softmax
    memory_dim: int | None = None  # width of the encoder's states; None: no attention to an encoder
    cross_self_attention: bool = False  # the self-attention sees the encoder's states too
    layerdrop: float = 0.0  # probability of a layer to be left out of a pass in training
    layers_to_keep: list[int] | None = None  # the layers that there are, from 0; None: all


MOST_SHARING = 16  # hypotheses that share one store: each is compared with what all have decoded


class TransformerCache:
    """For each decoder layer, the keys and values of its self-attention and of its attention to the encoder.

    Once the first reordering makes k hypotheses of each row, these share one store of all that any of them decodes:
    they are queries side by side, and from then on what is reordered is only `seen`, not keys and values.
    """

    def __init__(self, layers: int):
        self.layers = [(KeyValues(), KeyValues()) for _ in range(layers)]
        self.step = 0
        self.seen: Tensor | None = None  # [M, k, E]: 0 at those of its store's E positions that it may see, else -inf
        self.source: tuple[Tensor | None] | None = None  # the encoder's mask, once it is known

    @property
    def sharing(self) -> int:
        """k, or 1."""
        return 1 if self.seen is None else self.seen.size(1)

    def new_position(self) -> Tensor | None:
        """Count one more position; what is added to scores of each store, [M, 1, k, E], itself seen; None: nothing."""
        self.step += 1
        if self.seen is None:
            return None
        itself = torch.eye(self.sharing, device=self.seen.device).log_().expand(self.seen.size(0), -1, -1)
        self.seen = torch.cat([self.seen, itself], dim=-1)
        return self.seen.unsqueeze(1)

    def source_mask(self, keep: Tensor) -> Tensor | None:
        """What is added to scores of an encoder's states that are kept as `keep` [M, S] says: [M, 1, 1, S]."""
        if self.source is None:
            mask = visible(keep)
            self.source = (None if mask is None else additive(mask),)
        return self.source[0]

    def reorder(self, rows: Tensor) -> None:
        stores, kept = rows, self.layers[0][0].rows
        if self.seen is not None:
            stores, places = rows[:: self.sharing] // self.sharing, (rows % self.sharing).view(-1, self.sharing, 1)
            self.seen = self.seen[stores].gather(1, places.expand(-1, -1, self.seen.size(-1)))
        elif self.step == 1 and 1 < (k := _repeats(rows)) <= MOST_SHARING:
            stores = rows[::k]
            self.seen = torch.zeros(stores.size(0), k, 1, device=rows.device)
        if stores.size(0) != kept or not torch.equal(stores, torch.arange(kept, device=rows.device)):
            for own, _ in self.layers:
                own.select(stores)

    def keep_sentences(self, sentences: Tensor) -> None:
        self.source = None
        for _, encoder in self.layers:
            encoder.select(sentences)


class Decoder(Embedding):
    """A stack of decoder layers. Parameters are named as in fairseq's state_dict."""

    def __init__(self, cfg: DecoderConfig, embed_tokens: nn.Embedding | AdaptiveInput, vocab_size: int):
        super().__init__(cfg.embedding, embed_tokens)
        dim = cfg.layer.embed_dim
        sees = cfg.memory_dim or dim, cfg.memory_dim is not None, cfg.cross_self_attention
        self.layers = LayerStack(lambda: DecoderLayer(cfg.layer, *sees), cfg.layers, cfg.layerdrop, cfg.layers_to_keep)
        self.layer_norm = cfg.layer.make_norm(dim) if cfg.final_norm else None
        tied = cfg.adaptive_softmax is not None and cfg.adaptive_softmax.tie_weights
        self.project_out_dim: nn.Linear | None = None
        if cfg.output_dim != dim and not tied:
            self.project_out_dim = nn.Linear(dim, cfg.output_dim, bias=False)
            nn.init.xavier_uniform_(self.project_out_dim.weight)
        self.adaptive_softmax: AdaptiveSoftmax | None = None
        self.output_projection: nn.Linear | None = None
        if cfg.adaptive_softmax is not None:
            self.adaptive_softmax = _adaptive_softmax(cfg.adaptive_softmax, cfg.output_dim, embed_tokens, vocab_size)
        else:
            self.output_projection = nn.Linear(cfg.output_dim, vocab_size, bias=False)
            nn.init.normal_(self.output_projection.weight, std=cfg.output_dim**-0.5)
            if cfg.share_input_output:
                assert isinstance(embed_tokens, nn.Embedding)
                self.output_projection.weight = embed_tokens.weight

    def forward(self, tokens: Tensor, memory: Memory | None, cache: TransformerCache | None = None) -> Tensor:
        """[B, T] -> features [B, T, D]. With a cache T = 1; the cache grows by the new position."""
        x = self.embed(tokens, None if cache is None else cache.step)
        states = None if memory is None else memory.states
        if cache is None:
            mask = None if memory is None else visible(memory.keep)
            for layer in self.layers:
                x = layer(x, states, mask)
            return self._features(x)
        mask = None if memory is None else cache.source_mask(memory.keep)
        seen = cache.new_position()
        x = x.view(-1, cache.sharing, x.size(-1))  # [M, k, D]
        for layer, seen_before in zip(self.layers, cache.layers):
            x = layer(x, states, mask, seen_before, seen)
        return self._features(x).view(len(tokens), 1, -1)

    def project(self, features: Tensor) -> Tensor:
        """[..., D] -> scores [..., V]; with an adaptive softmax log-probabilities."""
        scores: Tensor = (self.adaptive_softmax or self.output_projection)(features)  # type: ignore[misc]
        return scores

    def new_cache(self) -> TransformerCache:
        return TransformerCache(len(self.layers))

    def with_attention(
        self, tokens: Tensor, memory: Memory, layer: int = -1, heads: int | None = None, full_context: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Features [B, T, D], and what `layer` attends to in the encoder, mean over its first `heads` heads [B, T, S].

        With `full_context` positions see the later ones too. No layer is dropped.
        """
        x, states, mask = self.embed(tokens), memory.states, visible(memory.keep)
        keep = tokens.ne(self.padding_idx) if full_context else None
        attention: list[Tensor] = []
        for each in self.layers.all():
            asked = attention if each is self.layers[layer] else None
            x = each(x, states, mask, keep=keep, attention=asked, heads=heads)
        return self._features(x), attention[0]

    def _features(self, x: Tensor) -> Tensor:
        """What stands behind the last layer."""
        x = x if self.layer_norm is None else self.layer_norm(x)
        return x if self.project_out_dim is None else self.project_out_dim(x)


def _adaptive_softmax(
    cfg: AdaptiveSoftmaxConfig, dim: int, embed_tokens: nn.Module, vocab_size: int
) -> AdaptiveSoftmax:
    tied = embed_tokens if cfg.tie_weights and isinstance(embed_tokens, AdaptiveInput) else None
    return AdaptiveSoftmax(vocab_size, dim, cfg.cutoff, cfg.dropout, cfg.factor, tied, cfg.tie_proj)


def _repeats(rows: Tensor) -> int:
    """k, where `rows` are k times the same row, then k times another, and so on; else 1."""
    k = int((rows == rows[0]).sum())
    return k if rows.size(0) % k == 0 and bool((rows.view(-1, k) == rows[::k, None]).all()) else 1
