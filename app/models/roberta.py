"""RoBERTa (Liu et al., 2019): a Transformer encoder that guesses masked tokens, and classifies what it reads."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.data.batch import Batch
from app.errors import ConfigError
from app.interfaces import Cache, EncoderOut, Model, Task
from app.modules.activations import ACTIVATIONS, GATED
from app.modules.bert_init import STD, init_bert_params
from app.modules.classification_head import ClassificationHead
from app.modules.embedding import EmbeddingConfig, token_embedding
from app.modules.transformer_encoder import EncoderConfig, TransformerEncoder
from app.modules.transformer_layer import LayerConfig
from app.ranges import divides, one_of, positive, probability


@dataclass
class RobertaConfig:
    """fairseq's names, flat."""

    encoder_layers: int  # layers
    encoder_embed_dim: int  # width
    encoder_ffn_embed_dim: int  # width inside the feed-forward parts
    encoder_attention_heads: int  # heads of each attention
    encoder_normalize_before: bool  # pre-norm: layer norm before each part, and one at the end
    encoder_learned_pos: bool  # learned rather than sinusoidal positions
    no_token_positional_embeddings: bool  # no positions at all
    no_scale_embedding: bool  # do not multiply embeddings by the square root of the width
    layernorm_embedding: bool  # layer norm after the embeddings
    untie_weights_roberta: bool  # scores of tokens from a matrix of their own rather than the embeddings'
    activation_fn: str  # of the feed-forward parts and of the head that scores tokens
    pooler_activation_fn: str  # inside a classification head
    dropout: float  # after embeddings and after each part of a layer
    attention_dropout: float  # on attention weights
    activation_dropout: float  # inside feed-forward parts
    pooler_dropout: float  # inside a classification head
    max_positions: int  # longest row, bos and eos included

    def check(self) -> Iterator[str]:
        yield from positive(self, "encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim")
        yield from positive(self, "encoder_attention_heads", "max_positions")
        yield from divides(self, "encoder_attention_heads", "encoder_embed_dim")
        yield from probability(self, "dropout", "attention_dropout", "activation_dropout", "pooler_dropout")
        yield from one_of(self, "pooler_activation_fn", *ACTIVATIONS)
        if self.activation_fn in GATED:
            yield f"activation_fn={self.activation_fn}: the head that scores tokens has no gate; choose gelu"
        else:
            yield from one_of(self, "activation_fn", *ACTIVATIONS)

    def encoder(self) -> EncoderConfig:
        embedding = EmbeddingConfig(
            dim=self.encoder_embed_dim,
            max_positions=self.max_positions,
            learned_pos=self.encoder_learned_pos,
            no_token_positional_embeddings=self.no_token_positional_embeddings,
            no_scale_embedding=self.no_scale_embedding,
            layernorm_embedding=self.layernorm_embedding,
            dropout=self.dropout,
        )
        layer = LayerConfig(
            embed_dim=self.encoder_embed_dim,
            ffn_embed_dim=self.encoder_ffn_embed_dim,
            attention_heads=self.encoder_attention_heads,
            normalize_before=self.encoder_normalize_before,
            activation_fn=self.activation_fn,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.activation_dropout,
        )
        return EncoderConfig(embedding, layer, self.encoder_layers, final_norm=self.encoder_normalize_before)


class LMHead(nn.Module):
    """Scores of tokens: a hidden layer, layer norm, and a projection, whose matrix may be the embeddings'."""

    def __init__(self, embed_tokens: nn.Embedding, activation_fn: str, tied: bool):
        super().__init__()
        size, dim = embed_tokens.weight.shape
        self.dense = nn.Linear(dim, dim)
        self.activation = ACTIVATIONS[activation_fn]
        self.layer_norm = nn.LayerNorm(dim)
        self.weight = embed_tokens.weight if tied else nn.Parameter(torch.randn(size, dim) * STD)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        return F.linear(self.layer_norm(self.activation(self.dense(features))), self.weight, self.bias)


class Encoder(nn.Module):
    """The stack of layers and the head that scores tokens, together as in fairseq's state_dict."""

    def __init__(self, cfg: RobertaConfig, embed_tokens: nn.Embedding):
        super().__init__()
        self.sentence_encoder = TransformerEncoder(cfg.encoder(), embed_tokens)
        self.lm_head = LMHead(embed_tokens, cfg.activation_fn, tied=not cfg.untie_weights_roberta)


class Roberta(Model):
    """Features of every token from all of its row, and a classification head for each that the task names.

    It generates nothing: there is no decoder. fairseq starts an untied output matrix as torch's linear layers start;
    here it starts as everything else does.
    """

    generates = False

    def __init__(self, cfg: RobertaConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_positions, cfg.max_positions)
        vocabulary, dim = task.source_vocabulary, cfg.encoder_embed_dim
        self.encoder = Encoder(cfg, token_embedding(len(vocabulary), dim, vocabulary.pad))
        self.classification_heads = nn.ModuleDict(
            {
                name: ClassificationHead(dim, dim, num_classes, cfg.pooler_activation_fn, cfg.pooler_dropout)
                for name, num_classes in task.classification_heads.items()
            }
        )
        self.apply(init_bert_params)

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        return EncoderOut(*self.encoder.sentence_encoder.states(src_tokens))

    def forward(self, batch: Batch) -> Tensor:
        """Features [B, S, D] of every source token."""
        return self.encode(batch.src_tokens, batch.src_lengths).states

    def project(self, features: Tensor) -> Tensor:
        """[..., D] -> scores [..., V] of the token that stands, or stood, there."""
        scores: Tensor = self.encoder.lm_head(features)
        return scores

    def classify(self, batch: Batch, head: str) -> Tensor:
        """[B, C]: the head's scores of the features of each row's first token, bos."""
        scores: Tensor = self.classification_heads[head](self(batch)[:, 0])
        return scores

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        raise ConfigError(["model: Roberta has no decoder, so it generates no text"])

    def new_cache(self) -> Cache:
        raise ConfigError(["model: Roberta has no decoder, so it generates no text"])
