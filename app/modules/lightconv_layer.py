"""One layer of a LightConv or DynamicConv encoder and of its decoder (Wu et al., 2019, sec. 5)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.attention import KeyValues, MultiheadAttention
from app.modules.convolution_windows import ConvCache, centred, past
from app.modules.dropout import Dropout
from app.modules.light_convolutions import DYNAMIC, DynamicConv, LightweightConv


@dataclass
class LightConvLayerConfig:
    """The sizes and rates of one layer."""

    embed_dim: int  # width
    conv_dim: int  # width of the convolution
    ffn_embed_dim: int  # width inside the feed-forward part
    heads: int  # heads of the convolution, and of the attention to the encoder
    kernel_size: int  # positions that the convolution reads
    conv_type: str  # lightweight or dynamic
    glu: bool  # a gated linear unit before the convolution
    normalize_before: bool  # layer norm before each part rather than after it
    weight_softmax: bool  # kernels are distributions
    dropout: float  # after each part
    attention_dropout: float  # on attention weights
    relu_dropout: float  # inside the feed-forward part
    input_dropout: float  # before the convolution's part
    weight_dropout: float  # on kernels


class LightConvLayer(nn.Module):
    """What both sides share: the two parts, and how a part is normed and added to its input."""

    def __init__(self, cfg: LightConvLayerConfig):
        super().__init__()
        self.normalize_before, self.glu, self.width = cfg.normalize_before, cfg.glu, cfg.kernel_size
        self.dropout, self.relu_dropout = Dropout(cfg.dropout), Dropout(cfg.relu_dropout)
        self.input_dropout = Dropout(cfg.input_dropout)
        self.linear1 = nn.Linear(cfg.embed_dim, cfg.conv_dim * (1 + cfg.glu))
        kind = DynamicConv if cfg.conv_type == DYNAMIC else LightweightConv
        self.conv = kind(cfg.conv_dim, cfg.heads, cfg.kernel_size, cfg.weight_softmax, cfg.weight_dropout)
        self.linear2 = nn.Linear(cfg.conv_dim, cfg.embed_dim)
        self.fc1 = nn.Linear(cfg.embed_dim, cfg.ffn_embed_dim)
        self.fc2 = nn.Linear(cfg.ffn_embed_dim, cfg.embed_dim)
        for linear in (self.linear1, self.linear2, self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def before(self, norm: nn.Module, x: Tensor) -> Tensor:
        normed: Tensor = norm(x) if self.normalize_before else x
        return normed

    def after(self, norm: nn.Module, residual: Tensor, y: Tensor) -> Tensor:
        x: Tensor = residual + self.dropout(y)
        return x if self.normalize_before else norm(x)

    def gate(self, x: Tensor) -> Tensor:
        """What the convolution reads: [B, T, D] -> [B, T, C]."""
        y: Tensor = self.linear1(self.input_dropout(x))
        return F.glu(y, dim=-1) if self.glu else y

    def convolve(self, x: Tensor, window: Tensor) -> Tensor:
        """[B, T, C] and what stands around it -> [B, T, D]."""
        y = self.conv(x, window) if isinstance(self.conv, DynamicConv) else self.conv(window)
        out: Tensor = self.linear2(y)
        return out

    def feed_forward(self, norm: nn.Module, x: Tensor) -> Tensor:
        y = self.relu_dropout(F.relu(self.fc1(self.before(norm, x))))
        return self.after(norm, x, self.fc2(y))


class LightConvEncoderLayer(LightConvLayer):
    """A convolution that reads both sides, then feed-forward."""

    def __init__(self, cfg: LightConvLayerConfig):
        super().__init__(cfg)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(cfg.embed_dim), nn.LayerNorm(cfg.embed_dim)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """[B, S, D]; keep [B, S], False at padding."""
        y = self.gate(self.before(self.layer_norm1, x)).masked_fill(~keep.unsqueeze(-1), 0)
        x = self.after(self.layer_norm1, x, self.convolve(y, centred(y, self.width)))
        return self.feed_forward(self.layer_norm2, x)


class LightConvDecoderLayer(LightConvLayer):
    """A convolution that sees no future, attention to the encoder's states (if there is one), then feed-forward."""

    def __init__(self, cfg: LightConvLayerConfig, number: int, memory_dim: int | None):
        super().__init__(cfg)
        self.number = number
        self.conv_layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.encoder_attn: MultiheadAttention | None = None
        if memory_dim is not None:
            self.encoder_attn = MultiheadAttention(cfg.embed_dim, cfg.heads, cfg.attention_dropout, memory_dim)
            self.encoder_attn_layer_norm = nn.LayerNorm(cfg.embed_dim)
        self.final_layer_norm = nn.LayerNorm(cfg.embed_dim)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None,
        mask: Tensor | None,
        seen: ConvCache | None = None,
        keys: KeyValues | None = None,
    ) -> Tensor:
        """x [N, T, D], memory [B, S, E] with mask [B, 1, 1, S] -> [N, T, D]; with a cache T = 1."""
        x = self.read_past(x, seen)
        if self.encoder_attn is not None and memory is not None:
            y = self.encoder_attn.over(self.before(self.encoder_attn_layer_norm, x), memory, mask, keys)
            x = self.after(self.encoder_attn_layer_norm, x, y)
        return self.feed_forward(self.final_layer_norm, x)

    def cross_attention(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """The weights of the attention to memory, mean over heads: [B, T, S]."""
        assert self.encoder_attn is not None
        y = self.before(self.encoder_attn_layer_norm, self.read_past(x, None))
        return self.encoder_attn.weights_over(y, memory, mask)

    def read_past(self, x: Tensor, seen: ConvCache | None) -> Tensor:
        """The convolution's part."""
        y = self.gate(self.before(self.conv_layer_norm, x))
        window = past(y, self.width) if seen is None else seen.slide(self.number, y, self.width)
        return self.after(self.conv_layer_norm, x, self.convolve(y, window))
