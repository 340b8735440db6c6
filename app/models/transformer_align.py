"""The Transformer with heads that are taught word alignments (Garg et al., 2019), with fairseq's parameter names."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from app.data.batch import Batch
from app.interfaces import EncoderOut, Task
from app.models.transformer import Transformer, TransformerConfig
from app.ranges import between


@dataclass
class TransformerAlignConfig(TransformerConfig):
    alignment_layer: int  # the decoder layer whose attention to the source is the alignment, of all from 0
    alignment_heads: int  # how many of its heads, from the first one; the alignment is their mean
    full_context_alignment: bool  # the alignment is made by a pass of its own, which sees the whole target

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from between(self, 0, self.decoder_layers - 1, "alignment_layer")
        yield from between(self, 1, self.decoder_attention_heads, "alignment_heads")
        kept = self.decoder_layers_to_keep
        if kept is not None and self.alignment_layer not in kept:
            yield f"alignment_layer={self.alignment_layer}: must be one of decoder_layers_to_keep={kept}"
        if self.no_cross_attention or self.cross_self_attention:
            yield "no_cross_attention, cross_self_attention: alignments need plain attention to the source; unset both"


class TransformerAlign(Transformer):
    """For criterion `label_smoothed_cross_entropy_with_alignment`, and alignments with `search.print_alignment`."""

    def __init__(self, cfg: TransformerAlignConfig, task: Task):
        super().__init__(cfg, task)
        kept = cfg.decoder_layers_to_keep or list(range(cfg.decoder_layers))
        self._alignment = (kept.index(cfg.alignment_layer), cfg.alignment_heads)
        self._full_context = cfg.full_context_alignment

    def features_and_attention(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features [B, T, D] and the alignment [B, T, S]; with `full_context_alignment` from two passes."""
        encoder_out = self.encode(batch.src_tokens, batch.src_lengths)
        if self._full_context:
            return self.decode(batch.prev_output_tokens, encoder_out), self.cross_attention(
                batch.prev_output_tokens, encoder_out
            )
        return self.decoder.with_attention(batch.prev_output_tokens, encoder_out, *self._alignment)

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor:
        """The alignment: [B, T] -> [B, T, S]."""
        return self.decoder.with_attention(prev_output_tokens, encoder_out, *self._alignment, self._full_context)[1]
