"""MyTask: say here what is learnt from which data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from app.config import BatchingConfig
from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.interfaces import Backward, Criterion, Loss, Model
from app.ranges import probability
from app.tasks.translation import Translation, TranslationConfig
from app.tokenizers import Tokenizer


@dataclass
class MyTaskConfig(TranslationConfig):
    word_dropout: float  # share of the source's pieces that training hides

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from probability(self, "word_dropout")


class MyTask(Translation):
    """Translation that learns from sources in which some pieces are unknown."""

    def __init__(self, cfg: MyTaskConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        super().__init__(cfg, make_tokenizer, batching)
        self.word_dropout = cfg.word_dropout

    def train_step(self, batch: Batch, model: Model, criterion: Criterion, optimizer: Backward) -> Loss:
        tokens = batch.src_tokens  # [B, S]
        hidden = (torch.rand(tokens.shape, device=tokens.device) < self.word_dropout) & tokens.gt(Vocabulary.unk)
        shown = replace(batch, src_tokens=tokens.masked_fill(hidden, Vocabulary.unk))
        return super().train_step(shown, model, criterion, optimizer)
