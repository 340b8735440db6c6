"""The conditional masked language model, decoded by mask-predict (Ghazvininejad et al., 2019)."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.interfaces import Draft, EncoderOut, Prediction, Refinement, Task
from app.models.drafts import LengthTransformer, LengthTransformerConfig


@dataclass
class CMLMTransformerConfig(LengthTransformerConfig):
    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.src_embedding_copy:
            yield "src_embedding_copy=true: masks are what this model learns from; set it to false"


class CMLMTransformer(LengthTransformer):
    """Learns the masked pieces of a target; decodes from all masked, masking again what it was least sure of."""

    def __init__(self, cfg: CMLMTransformerConfig, task: Task):
        super().__init__(cfg, task)

    def predictions(self, batch: Batch) -> dict[str, Prediction]:
        encoder_out = self.encode(batch.src_tokens, batch.src_lengths)
        features = self.decode(batch.prev_output_tokens, encoder_out)
        masked = batch.prev_output_tokens.eq(Vocabulary.unk)
        return {
            "word_ins": self.word_prediction(features, batch.target, masked),
            "length": self.length_prediction(encoder_out, batch.target),
        }

    def refine(self, draft: Draft, encoder_out: EncoderOut, refinement: Refinement) -> Draft:
        features = self.decode(draft.tokens, encoder_out)
        draft = Draft(*self.decoder.write(features, *draft, draft.tokens.eq(Vocabulary.unk)))
        done = refinement.step + 1
        if done >= refinement.max_step:
            return draft
        doubtful = least_sure(draft, 1 - done / refinement.max_step)
        return Draft(draft.tokens.masked_fill(doubtful, Vocabulary.unk), draft.scores.masked_fill(doubtful, 0))


def least_sure(draft: Draft, share: float) -> Tensor:
    """Where [B, T] this share of a row's pieces stands whose scores are lowest; bos and eos stay whatever theirs."""
    real = draft.tokens.ne(Vocabulary.pad)
    inner = real & draft.tokens.ne(Vocabulary.bos) & draft.tokens.ne(Vocabulary.eos)
    count = ((real.sum(1) - 2) * share).long()
    rank = draft.scores.masked_fill(~inner, float("inf")).argsort(1).argsort(1)
    return inner & (rank < count[:, None])
