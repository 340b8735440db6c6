"""Stacks of convolutions with gated linear units (Dauphin et al., 2017; Gehring et al., 2017)."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.adaptive_softmax import AdaptiveSoftmax
from app.modules.convolution_windows import ConvCache, centred, past
from app.modules.dropout import Dropout
from app.modules.positions import make_positions
from app.modules.weight_norm import WeightNormConvolution, WeightNormLinear

INIT_STD = 0.1  # of embeddings
SQRT_HALF = 0.5**0.5  # keeps the variance of a sum of two

Layers = list[
    list[int]
]  # [channels, width] or [channels, width, layers back that its residual comes from (1; 0: none)]


def plain_linear(inputs: int, outputs: int, dropout: float = 0.0) -> nn.Linear:
    """Initial weights keep the inputs' variance, of which `dropout` is taken (Gehring et al., 2017, A.1)."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=((1 - dropout) / inputs) ** 0.5)
    nn.init.zeros_(linear.bias)
    return linear


class Convolution(nn.Module):
    """A convolution over time, without padding: [B, T + width - 1, inputs] -> [B, T, outputs]."""

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float = 0.0):
        """A gated linear unit follows, which the initial weights make up for."""
        super().__init__()
        std = (4 * (1 - dropout) / (width * inputs)) ** 0.5
        self.weight = nn.Parameter(torch.randn(width, inputs, outputs) * std)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x.transpose(1, 2), self.weight.permute(2, 1, 0), self.bias).transpose(1, 2)


def check_layers(name: str, layers: Layers) -> Iterator[str]:
    """The faults of a field that describes convolutions."""
    if not layers:
        yield f"{name}=[]: must have a layer, such as [512,3]"
    for i, layer in enumerate(layers):
        if len(layer) not in (2, 3) or min(layer[:2]) < 1:
            yield f"{name}: layer {i} is {layer}: must be [channels, width] or [channels, width, residual]"
        elif len(layer) == 3 and not 0 <= layer[2] <= i + 1:
            yield f"{name}: layer {i} is {layer}: its residual must come from 1 to {i + 1} layers back, or be 0 (none)"


class GatedConvolutions(nn.Module):
    """Embeddings, a projection to the first layer's width, and the layers, with weight norm or without."""

    def __init__(self, embed_tokens: nn.Embedding, layers: Layers, dropout: float, weight_norm: bool = True):
        super().__init__()
        make_linear: Callable[..., nn.Module] = WeightNormLinear if weight_norm else plain_linear
        make_convolution = WeightNormConvolution if weight_norm else Convolution
        self.embed_tokens = embed_tokens
        self.dropout = Dropout(dropout)
        sizes = [layers[0][0]]
        self.fc1 = make_linear(embed_tokens.embedding_dim, sizes[0], dropout)
        self.projections, self.convolutions = nn.ModuleList(), nn.ModuleList()
        self.residuals: list[int] = []
        self.widths = [layer[1] for layer in layers]
        for channels, width, *residual in layers:
            back = residual[0] if residual else 1
            same = back == 0 or sizes[-back] == channels
            self.projections.append(nn.Identity() if same else make_linear(sizes[-back], channels))
            self.convolutions.append(make_convolution(sizes[-1], 2 * channels, width, dropout))
            self.residuals.append(back)
            sizes.append(channels)
        self.channels = sizes[-1]

    def convolve(
        self, x: Tensor, see: Callable[[int, Tensor, int], Tensor], attend: Callable[[int, Tensor], Tensor]
    ) -> Tensor:
        """Embeddings [B, T, E] -> the last layer's output [B, T, C].

        `see(layer, x, width)` gives what a convolution reads, width - 1 positions more than x; `attend(layer, x)` is
        what follows its gate.
        """
        x = self.fc1(x)
        outputs = [x]
        for i, (convolution, projection) in enumerate(zip(self.convolutions, self.projections)):
            window = see(i, self.dropout(x), self.widths[i])
            x = attend(i, F.glu(convolution(window), dim=-1))
            if self.residuals[i]:
                x = (x + projection(outputs[-self.residuals[i]])) * SQRT_HALF
            outputs.append(x)
        return x


class ConvEncoder(GatedConvolutions):
    """Convolutions around every position, and what attention takes of them (Gehring et al., 2017, sec. 3.3).

    `attention` holds what follows a layer's gate by the layer's number: nothing, unless a model puts something there.
    """

    def __init__(
        self,
        embed_tokens: nn.Embedding,
        layers: Layers,
        dropout: float,
        max_positions: int,
        readers: int,
        weight_norm: bool = True,
    ):
        """`readers`: how many attentions read the states."""
        super().__init__(embed_tokens, layers, dropout, weight_norm)
        self.readers = readers
        self.embed_positions = ConvPositions(max_positions, embed_tokens)
        self.attention = nn.ModuleDict()
        self.fc2 = (WeightNormLinear if weight_norm else plain_linear)(self.channels, embed_tokens.embedding_dim)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, S] -> keys [B, S, E], values [B, S, E], which see the embeddings too, and keep [B, S]."""
        keep = tokens.ne(self.embed_positions.padding)
        padding = ~keep.unsqueeze(-1)
        embedded = self.dropout(self.embed_tokens(tokens) + self.embed_positions(tokens))

        def see(layer: int, x: Tensor, width: int) -> Tensor:
            return centred(x.masked_fill(padding, 0), width)

        def attend(layer: int, x: Tensor) -> Tensor:
            return self.attention[str(layer)](x, x) if str(layer) in self.attention else x

        x = self.fc2(self.convolve(embedded, see, attend)).masked_fill(padding, 0)
        if x.requires_grad and self.readers:  # so that many attentions do not drown the encoder's other gradients
            x.register_hook(lambda grad: grad / (2 * self.readers))
        return x, (x + embedded) * SQRT_HALF, keep


class ConvDecoder(GatedConvolutions):
    """Convolutions that see no future, and the way to scores. What embeds and attends is left to the model."""

    def __init__(
        self,
        embed_tokens: nn.Embedding,
        layers: Layers,
        dropout: float,
        out_embed_dim: int,
        share_embed: bool,
        adaptive_softmax_cutoff: list[int] | None,
        adaptive_softmax_dropout: float,
    ):
        super().__init__(embed_tokens, layers, dropout)
        words = embed_tokens.num_embeddings
        self.adaptive_softmax: AdaptiveSoftmax | None = None
        self.fc2: WeightNormLinear | None = None
        self.fc3: WeightNormLinear | nn.Linear | None = None
        if adaptive_softmax_cutoff is not None:
            cutoff, rate = adaptive_softmax_cutoff, adaptive_softmax_dropout
            self.adaptive_softmax = AdaptiveSoftmax(words, self.channels, cutoff, rate)
            return
        self.fc2 = WeightNormLinear(self.channels, out_embed_dim)
        if share_embed:
            self.fc3 = nn.Linear(out_embed_dim, words)
            self.fc3.weight = embed_tokens.weight
        else:
            self.fc3 = WeightNormLinear(out_embed_dim, words, dropout)

    def features(self, x: Tensor, attend: Callable[[int, Tensor], Tensor], cache: ConvCache | None) -> Tensor:
        """Embeddings [B, T, E] -> what `project` takes; with a cache T = 1."""
        x = self.convolve(x, read_past if cache is None else cache.slide, attend)
        if cache is not None:
            cache.step += 1
        return x if self.fc2 is None else self.dropout(self.fc2(x))

    def project(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        scores: Tensor = (self.adaptive_softmax or self.fc3)(features)  # type: ignore[misc]
        return scores


def read_past(layer: int, x: Tensor, width: int) -> Tensor:
    """What a convolution without a future reads; see `GatedConvolutions.convolve`."""
    return past(x, width)


class ConvPositions(nn.Embedding):
    """A vector a position, learned, as convolutional models begin with them; as wide as the tokens' are."""

    def __init__(self, max_positions: int, embed_tokens: nn.Embedding):
        assert embed_tokens.padding_idx is not None
        self.padding = embed_tokens.padding_idx
        super().__init__(max_positions + self.padding + 1, embed_tokens.embedding_dim, self.padding)
        init_conv_embedding(self)

    def forward(self, tokens: Tensor, step: int | None = None) -> Tensor:
        """[B, T] -> [B, T, D]. `step`: all tokens stand at this position (from 0), as in decoding with a cache."""
        if step is None:
            return super().forward(make_positions(tokens, self.padding))
        return super().forward(torch.full_like(tokens, self.padding + 1 + step))


def conv_embedding(size: int, dim: int, padding_idx: int) -> nn.Embedding:
    """Embeddings as convolutional models begin with them; padding's is 0."""
    embedding = nn.Embedding(size, dim, padding_idx)
    init_conv_embedding(embedding)
    return embedding


def init_conv_embedding(embedding: nn.Embedding) -> None:
    nn.init.normal_(embedding.weight, std=INIT_STD)
    nn.init.zeros_(embedding.weight[embedding.padding_idx])
