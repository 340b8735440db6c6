"""Convolutions with self-attention between them, for stories (Fan et al., 2018); fairseq's parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, Model, Task
from app.modules.convolution_windows import ConvCache
from app.modules.downsampled_attention import DownsampledAttention, PastAttention
from app.modules.gated_convolutions import (
    ConvEncoder,
    ConvPositions,
    GatedConvolutions,
    check_layers,
    conv_embedding,
    plain_linear,
    read_past,
)
from app.ranges import divides, positive, probability


@dataclass
class FConvSelfAttConfig:
    """A layer is [channels, width]. Longest source and target are fairseq's less 2, as for `fconv`."""

    encoder_embed_dim: int  # width of the encoder's embeddings and output; the decoder's too
    encoder_layers: list[list[int]]  # the encoder's convolutions
    encoder_attention: list[bool] | None  # whether self-attention follows each encoder layer; null: all; []: none
    encoder_attention_nheads: int  # heads of that
    decoder_embed_dim: int  # width of the decoder's embeddings
    decoder_layers: list[list[int]]  # the decoder's convolutions
    decoder_out_embed_dim: int  # width of the features that are projected to the vocabulary
    decoder_attention: list[bool] | None  # whether each decoder layer attends to the encoder; null: all; []: none
    multihead_attention_nheads: int  # heads of that
    self_attention: list[bool] | None  # whether self-attention follows each decoder layer; null: all; []: none
    multihead_self_attention_nheads: int  # heads of that
    project_input: bool  # attentions in the decoder project what they read
    gated_attention: bool  # the decoder's self-attention projects by gated linear units
    downsample: bool  # head i of the decoder's self-attention sees every (i + 1)th position
    mask_padding: bool  # attention leaves padding out; false: as in fairseq, where an output depends on its batch
    dropout: float  # before each convolution, and on embeddings and features
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        yield from positive(self, "encoder_embed_dim", "decoder_embed_dim", "decoder_out_embed_dim")
        yield from positive(self, "max_source_positions", "max_target_positions")
        heads = "encoder_attention_nheads", "multihead_attention_nheads", "multihead_self_attention_nheads"
        yield from positive(self, *heads)
        for name in heads:
            yield from divides(self, name, "decoder_embed_dim")
        yield from probability(self, "dropout")
        for side, flags in (("encoder", ("encoder_attention",)), ("decoder", ("decoder_attention", "self_attention"))):
            layers = getattr(self, f"{side}_layers")
            yield from check_layers(f"{side}_layers", layers)
            for name in flags:
                given = getattr(self, name)
                if given and len(given) != len(layers):
                    yield f"{name}={given}: must be null, [], or have an entry for each of {len(layers)} {side}_layers"
        if self.encoder_embed_dim != self.decoder_embed_dim:
            yield f"decoder_embed_dim={self.decoder_embed_dim}: must equal encoder_embed_dim={self.encoder_embed_dim}"
        if self.downsample and not self.project_input:
            yield "downsample=true: needs project_input=true"


class Encoder(ConvEncoder):
    """Self-attention may follow each convolution."""

    def __init__(self, cfg: FConvSelfAttConfig, embed_tokens: nn.Embedding, readers: int):
        layers, positions = cfg.encoder_layers, cfg.max_source_positions
        super().__init__(embed_tokens, layers, cfg.dropout, positions, readers, weight_norm=False)
        for i, (channels, *_) in chosen(layers, cfg.encoder_attention):
            dim, heads = cfg.encoder_embed_dim, cfg.encoder_attention_nheads
            self.attention[str(i)] = PastAttention(channels, dim, heads, False, False, False)


class StoryCache(ConvCache):
    """What the convolutions still read, and all that each self-attention has read, [N, T, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[int, Tensor] = {}

    def append(self, layer: int, x: Tensor) -> Tensor:
        """[N, 1, C] -> [N, T, C]: this layer's inputs so far."""
        self.read[layer] = torch.cat([self.read[layer], x], dim=1) if layer in self.read else x
        return self.read[layer]

    def reorder(self, rows: Tensor) -> None:
        super().reorder(rows)
        self.read = {layer: x.index_select(0, rows) for layer, x in self.read.items()}


class Decoder(GatedConvolutions):
    """Causal convolutions; attention to the encoder and to the past may follow each."""

    def __init__(self, cfg: FConvSelfAttConfig, embed_tokens: nn.Embedding):
        super().__init__(embed_tokens, cfg.decoder_layers, cfg.dropout, weight_norm=False)
        dim = cfg.decoder_embed_dim
        self.mask_padding = cfg.mask_padding
        self.embed_positions = ConvPositions(cfg.max_target_positions, embed_tokens)
        self.attention, self.attproj, self.selfattention = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for i, (channels, *_) in chosen(cfg.decoder_layers, cfg.decoder_attention):
            heads = cfg.multihead_attention_nheads
            self.attention[str(i)] = DownsampledAttention(dim, channels, heads, cfg.project_input)
            self.attproj[str(i)] = plain_linear(channels, dim, cfg.dropout)
        options = cfg.multihead_self_attention_nheads, cfg.project_input, cfg.gated_attention, cfg.downsample
        for i, (channels, *_) in chosen(cfg.decoder_layers, cfg.self_attention):
            self.selfattention[str(i)] = PastAttention(channels, dim, *options)
        self.fc2 = plain_linear(self.channels, cfg.decoder_out_embed_dim)
        self.fc3 = plain_linear(cfg.decoder_out_embed_dim, embed_tokens.num_embeddings, cfg.dropout)

    def forward(
        self, tokens: Tensor, encoder_out: EncoderOut, cache: StoryCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """[N, T] -> features [N, T, D], and the weights [N, T, S] of each attention to the encoder."""
        placed = self.embed_positions(tokens, None if cache is None else cache.step)
        embedded = self.dropout(self.embed_tokens(tokens) + placed)
        keep = encoder_out.keep if self.mask_padding else None
        seen: list[Tensor] = []

        def attend(layer: int, x: Tensor) -> Tensor:
            name = str(layer)
            if name in self.attention:
                query = self.attproj[name](x) + embedded
                y, weights = self.attention[name](query, encoder_out.states, encoder_out.more[0], False, keep)
                seen.append(weights)
                x = x + y
            if name not in self.selfattention:
                return x
            attended: Tensor = self.selfattention[name](x, x if cache is None else cache.append(layer, x))
            return attended

        x = self.convolve(embedded, read_past if cache is None else cache.slide, attend)
        if cache is not None:
            cache.step += 1
        return self.dropout(self.fc2(x)), seen


class FConvSelfAtt(Model):
    """Stories from prompts. fairseq's fusion with a trained model (sec. 3.4) is left out."""

    def __init__(self, cfg: FConvSelfAttConfig, task: Task):
        super().__init__(cfg, task)
        source, target = task.source_vocabulary, task.target_vocabulary
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        embed_target = conv_embedding(len(target), cfg.decoder_embed_dim, target.pad)
        self.decoder = Decoder(cfg, embed_target)
        embed_source = conv_embedding(len(source), cfg.encoder_embed_dim, source.pad)
        encoder = Encoder(cfg, embed_source, readers=len(self.decoder.attention))
        self.encoder = nn.ModuleDict({"encoder": encoder})  # fairseq's has room for a second one

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        """`states` are the keys of attention; `more` holds its values."""
        keys, values, keep = self.encoder["encoder"](src_tokens)
        return EncoderOut(keys, keep, (values,))

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        features: Tensor = self.decoder(prev_output_tokens, encoder_out, cache)[0]
        return features

    def new_cache(self) -> StoryCache:
        return StoryCache()

    def project(self, features: Tensor) -> Tensor:
        scores: Tensor = self.decoder.fc3(features)
        return scores

    @property
    def output_projection(self) -> nn.Linear:
        return self.decoder.fc3

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor | None:
        """The mean over the layers that attend; fairseq gives their sum."""
        seen = self.decoder(prev_output_tokens, encoder_out)[1]
        return torch.stack(seen).mean(dim=0) if seen else None


def chosen(layers: list[list[int]], flags: list[bool] | None) -> Iterator[tuple[int, list[int]]]:
    """The layers whose flag is set, with their numbers; None sets all, an empty list none."""
    for i, layer in enumerate(layers):
        if flags is None or (flags and flags[i]):
            yield i, layer
