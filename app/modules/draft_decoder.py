"""A Transformer's decoder that sees the whole of a draft: every position attends to every other."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.modules.attention import MultiheadAttention, visible
from app.modules.embedding import Embedding, EmbeddingConfig
from app.modules.positions import make_positions
from app.modules.transformer_decoder import Memory
from app.modules.transformer_layer import Layer, LayerConfig

CHUNK = 2**22  # scores held at a time when a draft is written: 16 MiB in fp32


@dataclass
class DraftDecoderConfig:
    """A stack of layers and what stands before and after it."""

    embedding: EmbeddingConfig
    layer: LayerConfig
    layers: int  # number of layers
    output_dim: int  # width of the features that are projected to the vocabulary
    final_norm: bool  # a layer norm after the last layer
    share_input_output: bool  # one matrix for embeddings and output projection
    memory_dim: int  # width of the encoder's states


class DraftLayer(Layer):
    """Self-attention to all that is not padding, attention to the encoder's states, then feed-forward."""

    def __init__(self, cfg: LayerConfig, memory_dim: int):
        super().__init__(cfg)
        self.encoder_attn = MultiheadAttention(
            cfg.embed_dim, cfg.attention_heads, cfg.attention_dropout, memory_dim, cfg.kv_heads
        )
        self.encoder_attn_layer_norm = cfg.make_norm(cfg.embed_dim)

    def forward(self, x: Tensor, seen: Tensor | None, memory: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, T, D] with its mask [B, 1, 1, T], memory [B, S, E] with mask [B, 1, 1, S] -> [B, T, D]."""
        y = self.self_attn(self.before(self.self_attn_layer_norm, x), seen, head_scale=self.c_attn)
        x = self.after_attention(x, y)
        y = self.encoder_attn.over(self.before(self.encoder_attn_layer_norm, x), memory, mask)
        return self.feed_forward(self.after(self.encoder_attn_layer_norm, x, y))


class DraftDecoder(Embedding):
    """A stack of `DraftLayer`. Parameters are named as in fairseq's state_dict."""

    def __init__(self, cfg: DraftDecoderConfig, embed_tokens: nn.Embedding, vocab_size: int):
        super().__init__(cfg.embedding, embed_tokens)
        dim = cfg.layer.embed_dim
        self.layers = self.new_layers(cfg, cfg.layers)
        self.layer_norm = cfg.layer.make_norm(dim) if cfg.final_norm else None
        self.project_out_dim: nn.Linear | None = None
        if cfg.output_dim != dim:
            self.project_out_dim = nn.Linear(dim, cfg.output_dim, bias=False)
            nn.init.xavier_uniform_(self.project_out_dim.weight)
        self.output_projection = nn.Linear(cfg.output_dim, vocab_size, bias=False)
        nn.init.normal_(self.output_projection.weight, std=cfg.output_dim**-0.5)
        if cfg.share_input_output:
            self.output_projection.weight = embed_tokens.weight

    @staticmethod
    def new_layers(cfg: DraftDecoderConfig, count: int) -> nn.ModuleList:
        return nn.ModuleList(DraftLayer(cfg.layer, cfg.memory_dim) for _ in range(count))

    def forward(
        self, tokens: Tensor, memory: Memory, copied: Tensor | None = None, layers: nn.ModuleList | None = None
    ) -> Tensor:
        """[B, T] -> features [B, T, D]. `copied` [B, T, D] stands for the tokens' vectors, `layers` for the stack."""
        seen, mask = visible(tokens.ne(self.padding_idx)), visible(memory.keep)
        x = self.embed(tokens) if copied is None else self._placed(copied, tokens)
        for layer in self.layers if layers is None else layers:
            x = layer(x, seen, memory.states, mask)
        x = x if self.layer_norm is None else self.layer_norm(x)
        return x if self.project_out_dim is None else self.project_out_dim(x)

    def write(self, features: Tensor, draft: Tensor, scores: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, T] and their scores [B, T] with the likeliest pieces at some places: features [B, T, D]."""
        pieces, best = likeliest(features[where], self.output_projection.weight)
        return draft.masked_scatter(where, pieces), scores.masked_scatter(where, best.to(scores.dtype))

    def _placed(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Vectors as they are, at the positions of the tokens."""
        if self.embed_positions is not None:
            x = x + self.embed_positions(make_positions(tokens, self.padding_idx))
        dropped: Tensor = self.dropout(x)
        return dropped


def class_vectors(count: int, dim: int) -> nn.Embedding:
    """A vector for each of `count` classes; a position's scores are its features times these."""
    vectors = nn.Embedding(count, dim)
    nn.init.normal_(vectors.weight, std=dim**-0.5)
    return vectors


def neighbours(features: Tensor) -> Tensor:
    """[B, T, D] -> [B, T - 1, 2 D]: what stands on both sides of each gap."""
    return torch.cat([features[:, :-1], features[:, 1:]], dim=-1)


def likeliest(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """features [N, D], weight [C, D] -> the best class of each and its log-probability, [N] twice.

    Scores are made for a part of the positions at a time: a draft asks for all of its positions at once.
    """
    best: list[Tensor] = []
    classes: list[Tensor] = []
    for part in torch.split(features, max(1, CHUNK // weight.size(0))):
        scores = nn.functional.linear(part, weight).float()
        top = scores.max(dim=-1)
        best.append(top.values - scores.logsumexp(dim=-1))
        classes.append(top.indices)
    return torch.cat(classes), torch.cat(best)
