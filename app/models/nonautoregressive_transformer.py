"""The non-autoregressive Transformer: all pieces at once, from blanks (Gu et al., 2018)."""

from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.interfaces import Draft, EncoderOut, Prediction, Refinement, Task
from app.models.drafts import LengthTransformer, LengthTransformerConfig


class NonautoregressiveTransformer(LengthTransformer):
    """Every piece is predicted from all of the draft before it, bos and eos too; further steps correct the draft.

    As in fairseq, a predicted length takes the place of the paper's fertilities.
    """

    def __init__(self, cfg: LengthTransformerConfig, task: Task):
        super().__init__(cfg, task)

    def predictions(self, batch: Batch) -> dict[str, Prediction]:
        encoder_out = self.encode(batch.src_tokens, batch.src_lengths)
        features = self.features(batch.prev_output_tokens, encoder_out, step=0)
        return {
            "word_ins": self.word_prediction(features, batch.target, batch.target.ne(Vocabulary.pad)),
            "length": self.length_prediction(encoder_out, batch.target),
        }

    def refine(self, draft: Draft, encoder_out: EncoderOut, refinement: Refinement) -> Draft:
        return self.rewritten(draft, encoder_out, refinement.step)
