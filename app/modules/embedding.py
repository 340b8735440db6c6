"""From tokens to vectors, as one side of a Transformer takes them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.modules.adaptive_input import AdaptiveInput
from app.modules.dropout import Dropout
from app.modules.positions import LearnedPositions, SinusoidalPositions, make_positions


@dataclass
class EmbeddingConfig:
    """What happens to a token before the first layer."""

    dim: int  # width of the layers; where the tokens' own differs, it is projected to this
    max_positions: int  # longest row
    learned_pos: bool  # learned rather than sinusoidal positions
    no_token_positional_embeddings: bool  # no positions at all
    no_scale_embedding: bool  # do not multiply embeddings by the square root of the width
    layernorm_embedding: bool  # layer norm after the embeddings
    dropout: float  # after all that


class Embedding(nn.Module):
    """Tokens to vectors: embedding, scale, position, layer norm, dropout."""

    embed_positions: nn.Module | None

    def __init__(self, cfg: EmbeddingConfig, embed_tokens: nn.Embedding | AdaptiveInput):
        super().__init__()
        assert embed_tokens.padding_idx is not None
        self.padding_idx = embed_tokens.padding_idx
        self.embed_tokens = embed_tokens
        self.scale = 1.0 if cfg.no_scale_embedding else cfg.dim**0.5
        self.project_in_dim: nn.Linear | None = None
        if embed_tokens.embedding_dim != cfg.dim:
            self.project_in_dim = nn.Linear(embed_tokens.embedding_dim, cfg.dim, bias=False)
            nn.init.xavier_uniform_(self.project_in_dim.weight)
        self.embed_positions = None
        if not cfg.no_token_positional_embeddings:
            kind = LearnedPositions if cfg.learned_pos else SinusoidalPositions
            self.embed_positions = kind(cfg.max_positions, cfg.dim, self.padding_idx)
        self.layernorm_embedding = nn.LayerNorm(cfg.dim) if cfg.layernorm_embedding else None
        self.dropout = Dropout(cfg.dropout)

    def embed(self, tokens: Tensor, step: int | None = None) -> Tensor:
        """[B, T] -> [B, T, D]. `step`: all tokens stand at this position (from 0), as in decoding with a cache."""
        x: Tensor = self.embed_tokens(tokens) * self.scale
        if self.project_in_dim is not None:
            x = self.project_in_dim(x)
        if self.embed_positions is not None:
            if step is None:
                positions = make_positions(tokens, self.padding_idx)
            else:
                positions = torch.full_like(tokens, self.padding_idx + 1 + step)
            x = x + self.embed_positions(positions)
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        dropped: Tensor = self.dropout(x)
        return dropped


def token_embedding(size: int, dim: int, padding_idx: int) -> nn.Embedding:
    """A vector a word, of length about 1; that of padding is zero."""
    embedding = nn.Embedding(size, dim, padding_idx)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    nn.init.zeros_(embedding.weight[padding_idx])
    return embedding
