"""What the decoders of LSTM models share: embeddings, cells, and the way from states to scores."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from app.modules.adaptive_softmax import AdaptiveSoftmax
from app.modules.dropout import Dropout
from app.ranges import positive, probability, rising_cutoffs

INIT_RANGE = 0.1  # parameters are drawn uniformly from within it (Sutskever et al., 2014, sec. 3.4, use 0.08)


@dataclass
class LSTMDecoderConfig:
    """The sizes and rates of an LSTM decoder, by fairseq's names."""

    decoder_embed_dim: int  # width of the target's embeddings
    decoder_hidden_size: int  # width of the decoder's states
    decoder_layers: int  # layers of the decoder
    decoder_out_embed_dim: int  # width of the features that are projected to the vocabulary
    decoder_dropout_in: float  # after the target's embeddings
    decoder_dropout_out: float  # after each of the decoder's layers and on its features
    share_decoder_input_output_embed: bool  # one matrix for the decoder's embeddings and output projection
    adaptive_softmax_cutoff: list[int] | None  # words up to each cutoff form a cluster; null: an ordinary softmax

    def check_decoder(self) -> Iterator[str]:
        yield from positive(self, "decoder_embed_dim", "decoder_hidden_size", "decoder_layers", "decoder_out_embed_dim")
        yield from probability(self, "decoder_dropout_in", "decoder_dropout_out")
        yield from rising_cutoffs(self, "adaptive_softmax_cutoff")
        if self.share_decoder_input_output_embed and self.decoder_embed_dim != self.decoder_out_embed_dim:
            yield (
                f"share_decoder_input_output_embed=true: decoder_embed_dim={self.decoder_embed_dim} and "
                f"decoder_out_embed_dim={self.decoder_out_embed_dim} must be equal"
            )
        if self.share_decoder_input_output_embed and self.adaptive_softmax_cutoff is not None:
            yield "share_decoder_input_output_embed=true: an adaptive softmax has no matrix to share; drop one of them"


class LSTMCache:
    """The decoder's vectors after the newest token, side by side: [N, vectors, H]. Nothing of the encoder."""

    state: Tensor | None = None

    def reorder(self, rows: Tensor) -> None:
        if self.state is not None:
            self.state = self.state.index_select(0, rows)

    def keep_sentences(self, sentences: Tensor) -> None:
        pass


class LSTMDecoder(nn.Module):
    """Embeddings, a cell a layer, and the output layers; subclasses run them.

    `feed_dim`: width of what the first layer reads beside the embedding. An adaptive softmax reads the states
    themselves; fairseq makes an `additional_fc` there too, which nothing uses.
    """

    def __init__(self, cfg: LSTMDecoderConfig, embed_tokens: nn.Embedding, feed_dim: int = 0):
        super().__init__()
        words, hidden, out = embed_tokens.num_embeddings, cfg.decoder_hidden_size, cfg.decoder_out_embed_dim
        self.embed_tokens = embed_tokens
        self.dropout_in, self.dropout_out = Dropout(cfg.decoder_dropout_in), Dropout(cfg.decoder_dropout_out)
        sizes = [cfg.decoder_embed_dim + feed_dim, *[hidden] * (cfg.decoder_layers - 1)]
        self.layers = nn.ModuleList(nn.LSTMCell(size, hidden) for size in sizes)
        self.additional_fc: nn.Linear | None = None
        self.fc_out: nn.Linear | None = None
        self.adaptive_softmax: AdaptiveSoftmax | None = None
        cutoff = cfg.adaptive_softmax_cutoff
        if cutoff is not None:
            self.adaptive_softmax = AdaptiveSoftmax(words, hidden, cutoff, cfg.decoder_dropout_out)
            return
        if hidden != out:
            self.additional_fc = nn.Linear(hidden, out)
        if not cfg.share_decoder_input_output_embed:
            self.fc_out = nn.Linear(out, words)

    def features(self, states: Tensor) -> Tensor:
        """States of the last layer [..., H] -> what `project` takes [..., D]."""
        return states if self.additional_fc is None else self.dropout_out(self.additional_fc(states))

    def project(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        if self.adaptive_softmax is not None:
            scores: Tensor = self.adaptive_softmax(features)
            return scores
        return F.linear(features, self.embed_tokens.weight) if self.fc_out is None else self.fc_out(features)


def init_uniformly(module: nn.Module) -> None:
    """Draw all parameters but an adaptive softmax's from +-`INIT_RANGE`, as fairseq does; padding's embedding is 0."""
    for name, parameter in module.named_parameters():
        if "adaptive_softmax" not in name:
            nn.init.uniform_(parameter, -INIT_RANGE, INIT_RANGE)
    for embedding in module.modules():
        if isinstance(embedding, nn.Embedding):
            nn.init.zeros_(embedding.weight[embedding.padding_idx])
