"""The Levenshtein Transformer: a draft is edited by deletions, gaps and pieces for the gaps (Gu et al., 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.interfaces import Cache, Draft, EncoderOut, Prediction, Refinement, Task
from app.models.drafts import DraftTransformer, DraftTransformerConfig
from app.modules.draft_decoder import DraftDecoder, class_vectors, neighbours
from app.modules.edits import align, inserted, with_gaps, within, without

GAPS = 256  # classes: how many pieces are inserted at one place, from 0
GAP_SMOOTHING = 0.01  # label smoothing of those
SHORTEST_LIMIT = 10  # an output may always have this many tokens, however short its source


@dataclass
class LevenshteinTransformerConfig(DraftTransformerConfig):
    early_exit: list[int]  # how many layers deletion, gaps and pieces go through; more than there are: all
    no_share_discriminator: bool  # deletion has layers of its own
    no_share_maskpredictor: bool  # gaps have layers of their own
    share_discriminator_maskpredictor: bool  # both have one set of layers, apart from the pieces'
    sampling_for_deletion: bool  # deletion learns from pieces drawn at random rather than the likeliest

    def check(self) -> Iterator[str]:
        yield from super().check()
        if len(self.early_exit) != 3 or min(self.early_exit, default=0) < 1:
            yield f"early_exit={self.early_exit}: must be three numbers of layers, such as [6,6,6]"
        if self.share_discriminator_maskpredictor and not self.no_share_discriminator:
            yield "share_discriminator_maskpredictor=true: needs no_share_discriminator=true"


class EditDecoder(DraftDecoder):
    """A decoder with two more classifiers: which pieces go, and how many are missing between two."""

    def __init__(self, cfg: LevenshteinTransformerConfig, embed_tokens: nn.Embedding, words: int):
        stack = cfg.decoder()
        super().__init__(stack, embed_tokens, words)
        self.exits = cfg.early_exit
        self.embed_mask_ins = class_vectors(GAPS, 2 * cfg.decoder_output_dim)
        self.embed_word_del = class_vectors(2, cfg.decoder_output_dim)
        own_msk, own_del = cfg.no_share_maskpredictor, cfg.no_share_discriminator
        self.layers_msk = self.new_layers(stack, self.exits[1]) if own_msk else None
        self.layers_del = self.new_layers(stack, self.exits[0]) if own_del else None
        if cfg.share_discriminator_maskpredictor:
            self.layers_msk = self.layers_del

    def deletion_features(self, tokens: Tensor, encoder_out: EncoderOut) -> Tensor:
        """[B, T] -> [B, T, D]."""
        return self._first(self.layers_del, self.exits[0], tokens, encoder_out)

    def gap_features(self, tokens: Tensor, encoder_out: EncoderOut) -> Tensor:
        """[B, T] -> [B, T - 1, 2 D]."""
        return neighbours(self._first(self.layers_msk, self.exits[1], tokens, encoder_out))

    def word_features(self, tokens: Tensor, encoder_out: EncoderOut) -> Tensor:
        """[B, T] -> [B, T, D]."""
        return self._first(None, self.exits[2], tokens, encoder_out)

    def _first(self, own: nn.ModuleList | None, count: int, tokens: Tensor, encoder_out: EncoderOut) -> Tensor:
        layers = self.layers if own is None else own
        features: Tensor = self(tokens, encoder_out, layers=layers[:count])
        return features


class LevenshteinTransformer(DraftTransformer):
    """Each step deletes, opens gaps and fills them. Gaps are learnt from targets with holes, deletion from its output.

    fairseq may insert more pieces than there are positions, and breaks; here the last of them are left out.
    """

    predicts_length = False
    decoder: EditDecoder

    def __init__(self, cfg: LevenshteinTransformerConfig, task: Task):
        self.cfg = cfg
        super().__init__(cfg, task)

    def make_decoder(self, embed_tokens: nn.Embedding, words: int) -> EditDecoder:
        return EditDecoder(self.cfg, embed_tokens, words)

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        return self.decoder.word_features(prev_output_tokens, encoder_out)

    def predictions(self, batch: Batch) -> dict[str, Prediction]:
        pad, target, draft = Vocabulary.pad, batch.target, batch.prev_output_tokens
        encoder_out = self.encode(batch.src_tokens, batch.src_lengths)
        gap = align(draft, target, pad).gap
        missing = gap.ge(0) & target.ne(pad)
        gaps, between = inserted(gap, draft.size(1) - 1).clamp(max=GAPS - 1), draft[:, 1:].ne(pad)
        gap_features = self.decoder.gap_features(draft, encoder_out)
        features = self.decode(target.masked_fill(missing, Vocabulary.unk), encoder_out)
        filled = target.where(~missing, self._filling(features.detach()))
        real = filled.ne(pad)
        gone = ~align(filled, target, pad).kept
        deletion_features = self.decoder.deletion_features(filled, encoder_out)
        vectors = self.decoder.embed_mask_ins.weight, self.output_projection.weight, self.decoder.embed_word_del.weight
        return {
            "mask_ins": Prediction(gap_features[between], vectors[0], gaps[between], GAP_SMOOTHING),
            "word_ins": Prediction(features[missing], vectors[1], target[missing], is_word=True),
            "word_del": Prediction(deletion_features[real], vectors[2], gone[real].long(), label_smoothing=0.0),
        }

    def _filling(self, features: Tensor) -> Tensor:
        """[B, T, D] -> the pieces [B, T] that the model would put there."""
        scores = self.project(features)
        scores[:, :, Vocabulary.pad] = float("-inf")
        if self.cfg.sampling_for_deletion and self.training:
            scores = scores - torch.empty_like(scores).exponential_().log()  # the Gumbel-max trick
        return scores.argmax(-1)

    def initialize(self, encoder_out: EncoderOut, beam: int = 1) -> Draft:
        return self.empty_draft(encoder_out)

    def refine(self, draft: Draft, encoder_out: EncoderOut, refinement: Refinement) -> Draft:
        sources = encoder_out.keep.sum(1)
        longest = (sources * refinement.max_ratio).clamp(SHORTEST_LIMIT, self.max_positions[1] + 1).long()
        draft = self._delete(draft, encoder_out)
        draft = self._open_gaps(draft, encoder_out, longest, refinement.eos_penalty)
        return self._fill_gaps(draft, encoder_out)

    def _delete(self, draft: Draft, encoder_out: EncoderOut) -> Draft:
        inner = draft.tokens.ne(Vocabulary.bos) & draft.tokens.ne(Vocabulary.eos) & draft.tokens.ne(Vocabulary.pad)
        if not inner.any():
            return draft
        features = self.decoder.deletion_features(draft.tokens, encoder_out)
        gone = (features @ self.decoder.embed_word_del.weight.t()).argmax(-1).bool()
        return Draft(*without(draft.tokens, draft.scores, gone & inner, Vocabulary.pad))

    def _open_gaps(self, draft: Draft, encoder_out: EncoderOut, longest: Tensor, penalty: float) -> Draft:
        lengths = draft.tokens.ne(Vocabulary.pad).sum(1)
        features = self.decoder.gap_features(draft.tokens, encoder_out)
        scores = (features @ self.decoder.embed_mask_ins.weight.t()).log_softmax(-1)
        scores[:, :, 0] -= penalty
        counts = torch.minimum(scores.argmax(-1), longest[:, None])
        real = draft.tokens[:, 1:].ne(Vocabulary.pad) & (lengths < longest)[:, None]
        counts = within(counts.masked_fill(~real, 0), self.max_positions[1] + 1 - lengths)
        return Draft(*with_gaps(draft.tokens, draft.scores, counts, Vocabulary.pad, Vocabulary.unk))

    def _fill_gaps(self, draft: Draft, encoder_out: EncoderOut) -> Draft:
        holes = draft.tokens.eq(Vocabulary.unk)
        if not holes.any():
            return draft
        return Draft(*self.decoder.write(self.decode(draft.tokens, encoder_out), *draft, holes))
