"""The Insertion Transformer: each step may insert a piece between any two (Stern et al., 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.interfaces import Draft, EncoderOut, Prediction, Refinement, Task
from app.models.drafts import DraftTransformer, DraftTransformerConfig
from app.modules.draft_decoder import DraftDecoder, DraftDecoderConfig, neighbours
from app.modules.edits import align, inserted, with_gaps, within
from app.ranges import positive


@dataclass
class InsertionTransformerConfig(DraftTransformerConfig):
    label_tau: float | None  # temperature of the wish for a gap's middle piece: small, a balanced tree; null: all alike

    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.label_tau is not None:
            yield from positive(self, "label_tau")


class GapDecoder(DraftDecoder):
    """A decoder whose features are those of the gaps between pieces."""

    def __init__(self, cfg: DraftDecoderConfig, embed_tokens: nn.Embedding, words: int):
        super().__init__(cfg, embed_tokens, words)
        self.pool_out = nn.Linear(2 * cfg.output_dim, cfg.output_dim)
        nn.init.xavier_uniform_(self.pool_out.weight)
        nn.init.zeros_(self.pool_out.bias)

    def gap_features(self, tokens: Tensor, encoder_out: EncoderOut) -> Tensor:
        """[B, T] -> [B, T - 1, D]."""
        features: Tensor = self.pool_out(neighbours(self(tokens, encoder_out)))
        return features


class InsertionTransformer(DraftTransformer):
    """For each gap of a draft a distribution over the pieces that belong there; padding means that none does.

    A gap's label weighs its pieces by their distance from its middle, and adds up where a piece is there twice.
    fairseq lets one overwrite the other, and takes the middle of long gaps half a piece to the right.
    """

    predicts_length = False
    decoder: GapDecoder

    def __init__(self, cfg: InsertionTransformerConfig, task: Task):
        self.cfg = cfg
        super().__init__(cfg, task)

    def make_decoder(self, embed_tokens: nn.Embedding, words: int) -> GapDecoder:
        return GapDecoder(self.cfg.decoder(), embed_tokens, words)

    def predictions(self, batch: Batch) -> dict[str, Prediction]:
        draft = batch.prev_output_tokens
        encoder_out = self.encode(batch.src_tokens, batch.src_lengths)
        weight = self.output_projection.weight
        features, between = self.decoder.gap_features(draft, encoder_out), draft[:, 1:].ne(Vocabulary.pad)
        wanted = gap_labels(draft, batch.target, weight.size(0), self.cfg.label_tau)
        return {"word_ins": Prediction(features[between], weight, wanted[between], is_word=True)}

    def initialize(self, encoder_out: EncoderOut, beam: int = 1) -> Draft:
        return self.empty_draft(encoder_out)

    def refine(self, draft: Draft, encoder_out: EncoderOut, refinement: Refinement) -> Draft:
        pad, room = Vocabulary.pad, self.max_positions[1] + 1 - draft.tokens.ne(Vocabulary.pad).sum(1)
        scores = self.project(self.decoder.gap_features(draft.tokens, encoder_out)).log_softmax(-1)
        scores[:, :, pad] -= refinement.eos_penalty
        best, pieces = scores.max(-1)
        counts = within((pieces.ne(pad) & draft.tokens[:, 1:].ne(pad)).long(), room)
        tokens, kept_scores = with_gaps(draft.tokens, draft.scores, counts, pad, HOLE)
        holes, chosen = tokens.eq(HOLE), counts.bool()
        return Draft(
            tokens.masked_scatter(holes, pieces[chosen]), kept_scores.masked_scatter(holes, best[chosen].float())
        )


HOLE = -1  # where a piece goes that is chosen already


def gap_labels(draft: Tensor, target: Tensor, words: int, tau: float | None) -> Tensor:
    """[B, T'], [B, T] -> [B, T' - 1, V]: what each gap lacks, a distribution; padding where it lacks nothing."""
    gap = align(draft, target, Vocabulary.pad).gap.masked_fill(target.eq(Vocabulary.pad), -1)
    gaps = draft.size(1) - 1
    counts = inserted(gap, gaps)
    rows, places = gap.gt(0).nonzero(as_tuple=True)
    cells = gap[rows, places] - 1
    first = torch.full_like(counts, target.size(1)).flatten()
    first = first.scatter_reduce(0, rows * gaps + cells, places, "amin").view_as(counts)
    middle = (counts[rows, cells] - 1) / 2
    distance = (places - first[rows, cells] - middle).abs()
    wishes = torch.zeros(*counts.shape, words, device=draft.device)
    weights = torch.ones_like(distance) if tau is None else (-distance / tau).exp()
    wishes.index_put_((rows, cells, target[rows, places]), weights, accumulate=True)
    wishes[:, :, Vocabulary.pad] = counts.eq(0).float()
    return wishes / wishes.sum(-1, keepdim=True)
