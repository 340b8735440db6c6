"""Cross-entropy of the tokens that were masked."""

from dataclasses import dataclass

from torch import Tensor

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import token_loss


@dataclass
class MaskedLMConfig:
    """Nothing to set."""


class MaskedLM(Criterion):
    """Devlin et al. (2019, sec. 3.1). `target` is padding wherever the token was left alone; `ntokens` counts them all.

    Scores are computed at masked positions only. Perplexity is of the masked tokens: `loss` over `sample_size`.
    """

    predicts = "masked tokens"

    def __init__(self, cfg: MaskedLMConfig, task: Task):
        super().__init__(cfg, task)
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        sums = token_loss(model, model(batch), batch.target, self.pad)
        logs: dict[str, Tensor | float] = {
            "loss": sums.loss.detach(),
            "ntokens": batch.num_tokens,
            "nsentences": len(batch),
        }
        return Loss(sums.loss, sums.num_tokens, logs)
