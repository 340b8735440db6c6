"""One layer of a Transformer's encoder and of its decoder (Vaswani et al., 2017, sec. 3.1)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.activations import ACTIVATIONS, GATED
from app.modules.attention import KeyValues, MultiheadAttention, additive, visible
from app.modules.dropout import Dropout

NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "rms": partial(nn.RMSNorm, eps=1e-6)}


@dataclass
class LayerConfig:
    """The sizes and rates of one side's layers."""

    embed_dim: int  # width
    ffn_embed_dim: int  # width inside the feed-forward part
    attention_heads: int  # heads of every attention
    normalize_before: bool  # layer norm before each part (pre-norm) rather than after it
    activation_fn: str  # of the feed-forward part
    dropout: float  # after each part
    attention_dropout: float  # on attention weights
    activation_dropout: float  # inside the feed-forward part
    scale_fc: bool = False  # layer norm inside the feed-forward part (NormFormer)
    scale_attn: bool = False  # layer norm after the self-attention (NormFormer)
    scale_heads: bool = False  # a learned factor for each head of the self-attention (NormFormer)
    scale_resids: bool = False  # a learned factor for each element of the feed-forward part's residual (NormFormer)
    norm_fn: str = "layer"  # which norm: layer, or rms (Zhang and Sennrich, 2019)
    rotary_pos: bool = False  # self-attention knows positions by turning queries and keys
    kv_heads: int | None = None  # heads of keys and values; None: as many as of queries

    def make_norm(self, dim: int) -> nn.Module:
        return NORMS[self.norm_fn](dim)

    def check(self) -> Iterator[str]:
        """What fairseq does not have. A model's config yields it, with its own names for `heads`."""
        kv_heads = self.kv_heads or self.attention_heads
        if self.kv_heads is not None and (self.kv_heads < 1 or self.attention_heads % kv_heads):
            yield f"kv_heads={self.kv_heads}: must divide attention_heads={self.attention_heads}"
        if self.rotary_pos and self.embed_dim // self.attention_heads % 2:
            yield f"rotary_pos=true: each head must have an even width, not {self.embed_dim // self.attention_heads}"


class Layer(nn.Module):
    """What both sides share: the feed-forward part, and how a part is normed and added to its input.

    The `scale_*` options are those of Shleifer et al. (2021, sec. 2), with fairseq's parameter names. fairseq's command
    line takes them and then ignores them; and its layer scales slices of the heads' projected sum where the paper, and
    this, scale each head's output.
    """

    def __init__(self, cfg: LayerConfig):
        super().__init__()
        self.normalize_before = cfg.normalize_before
        self.activation = (ACTIVATIONS | GATED)[cfg.activation_fn]
        self.dropout = Dropout(cfg.dropout)
        self.activation_dropout = Dropout(cfg.activation_dropout)
        self.self_attn = MultiheadAttention(
            cfg.embed_dim, cfg.attention_heads, cfg.attention_dropout, None, cfg.kv_heads, cfg.rotary_pos
        )
        self.self_attn_layer_norm = cfg.make_norm(cfg.embed_dim)
        self.attn_ln = cfg.make_norm(cfg.embed_dim) if cfg.scale_attn else None
        self.c_attn = nn.Parameter(torch.ones(cfg.attention_heads)) if cfg.scale_heads else None
        self.fc1: nn.Module = nn.Linear(cfg.embed_dim, cfg.ffn_embed_dim)
        self.fc2 = nn.Linear(cfg.ffn_embed_dim, cfg.embed_dim)
        self.ffn_layernorm = cfg.make_norm(cfg.ffn_embed_dim) if cfg.scale_fc else None
        self.w_resid = nn.Parameter(torch.ones(cfg.embed_dim)) if cfg.scale_resids else None
        self.final_layer_norm = cfg.make_norm(cfg.embed_dim)
        self.gate = nn.Linear(cfg.embed_dim, cfg.ffn_embed_dim) if cfg.activation_fn in GATED else None
        for linear in (self.fc1, self.fc2, *([] if self.gate is None else [self.gate])):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def pack(self, with_relu: Callable[[nn.Linear], nn.Module]) -> None:
        """Let one layer compute the first product of the feed-forward part and its ReLU, if that is what follows it."""
        if self.activation is F.relu and isinstance(self.fc1, nn.Linear):
            self.fc1, self.activation = with_relu(self.fc1), ACTIVATIONS["linear"]

    def before(self, norm: nn.Module, x: Tensor) -> Tensor:
        normed: Tensor = norm(x) if self.normalize_before else x
        return normed

    def after(self, norm: nn.Module, residual: Tensor, y: Tensor) -> Tensor:
        x: Tensor = residual + self.dropout(y)
        return x if self.normalize_before else norm(x)

    def after_attention(self, residual: Tensor, y: Tensor) -> Tensor:
        return self.after(self.self_attn_layer_norm, residual, y if self.attn_ln is None else self.attn_ln(y))

    def feed_forward(self, x: Tensor) -> Tensor:
        normed = self.before(self.final_layer_norm, x)
        inner = self.fc1(normed)
        y = self.activation(inner) if self.gate is None else self.activation(self.gate(normed)) * inner
        y = self.activation_dropout(y)
        y = y if self.ffn_layernorm is None else self.ffn_layernorm(y)
        residual = x if self.w_resid is None else x * self.w_resid
        return self.after(self.final_layer_norm, residual, self.fc2(y))


class EncoderLayer(Layer):
    """Self-attention, then feed-forward."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, S, D]; mask [B, 1, 1, S], True where a key may be seen."""
        y = self.self_attn(self.before(self.self_attn_layer_norm, x), mask, head_scale=self.c_attn)
        return self.feed_forward(self.after_attention(x, y))


class DecoderLayer(Layer):
    """Causal self-attention, attention to the encoder's states (unless there is none), then feed-forward."""

    def __init__(self, cfg: LayerConfig, memory_dim: int, cross_attention: bool, cross_self_attention: bool):
        super().__init__(cfg)
        self.cross_self_attention = cross_self_attention
        self.encoder_attn: MultiheadAttention | None = None
        if cross_attention:
            self.encoder_attn = MultiheadAttention(
                cfg.embed_dim, cfg.attention_heads, cfg.attention_dropout, memory_dim, cfg.kv_heads
            )
            self.encoder_attn_layer_norm = cfg.make_norm(cfg.embed_dim)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None,
        mask: Tensor | None,
        cache: tuple[KeyValues, KeyValues] | None = None,
        seen: Tensor | None = None,
        keep: Tensor | None = None,
        attention: list[Tensor] | None = None,
        heads: int | None = None,
    ) -> Tensor:
        """x [B, T, D], memory [B, S, E] with mask [B, 1, 1, S] -> [B, T, D].

        With a cache x is the newest position of T hypotheses, which share what the cache holds of the self-attention as
        far as `seen` [B, 1, T, E], which is added to scores, allows; None: all of it. `keep`: see `attend_self`. What
        it attends to in the memory, mean over the first `heads` heads, or all, [B, T, S], is appended to `attention`.
        """
        x = self.attend_self(x, memory, mask, cache, keep, seen)
        if attention is not None:
            assert memory is not None
            attention.append(self.memory_weights(x, memory, mask, heads))
        return self.feed_forward(self.attend_memory(x, memory, mask, cache))

    def attend_memory(
        self,
        x: Tensor,
        memory: Tensor | None,
        mask: Tensor | None,
        cache: tuple[KeyValues, KeyValues] | None = None,
    ) -> Tensor:
        """The part that attends to the encoder's states, if there is one."""
        if self.encoder_attn is None or memory is None:
            return x
        y = self.before(self.encoder_attn_layer_norm, x)
        y = self.encoder_attn.over(y, memory, mask, None if cache is None else cache[1])
        return self.after(self.encoder_attn_layer_norm, x, y)

    def memory_weights(self, x: Tensor, memory: Tensor, mask: Tensor | None, heads: int | None = None) -> Tensor:
        """What `attend_memory` of x attends to, mean over the first `heads` heads, or all: [B, T, S]."""
        assert self.encoder_attn is not None
        return self.encoder_attn.weights_over(self.before(self.encoder_attn_layer_norm, x), memory, mask, heads)

    def attend_self(
        self,
        x: Tensor,
        memory: Tensor | None,
        mask: Tensor | None,
        cache: tuple[KeyValues, KeyValues] | None,
        keep: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """The self-attention part; with `cross_self_attention` it sees the encoder's states in front of the target.

        With `keep` [B, T] a position sees all that are kept, the later ones too, rather than those up to itself.
        """
        past = None if cache is None else cache[0]
        y = self.before(self.self_attn_layer_norm, x)
        if keep is not None:
            y = self.self_attn(y, visible(keep), head_scale=self.c_attn)
        elif not self.cross_self_attention or memory is None:
            y = self.self_attn(y, seen, causal=True, cache=past, head_scale=self.c_attn)
        else:
            rows = x.size(0) // memory.size(0)
            first = past is None or past.length == 0
            context = torch.cat([memory.repeat_interleave(rows, 0), y], dim=1) if first else y
            seeing = self._memory_and_past(x, memory, mask, rows, past, seen)
            y = self.self_attn(y, seeing, cache=past, context=context, head_scale=self.c_attn)
        return self.after_attention(x, y)

    @staticmethod
    def _memory_and_past(
        x: Tensor, memory: Tensor, mask: Tensor | None, rows: int, past: KeyValues | None, seen: Tensor | None
    ) -> Tensor:
        """What is added to scores, [B, 1, T, S + past]: all of the memory that is not padding, and no future."""
        new = x.size(1)
        if seen is None:
            length = new if past is None else max(past.length - memory.size(1), 0) + new
            seen = torch.ones(new, length, dtype=torch.bool, device=x.device).tril_(length - new)
        if mask is None:
            mask = torch.ones(memory.size(0), 1, 1, memory.size(1), dtype=torch.bool, device=x.device)
        source = additive(mask).repeat_interleave(rows, 0).expand(-1, -1, new, -1)
        return torch.cat([source, additive(seen).expand(x.size(0), 1, -1, -1)], dim=-1)
