"""MyTask: say here what is learnt from which data."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.config import BatchingConfig
from app.data.dataset import PairDataset
from app.tasks.translation import Translation, TranslationConfig
from app.tokenizers import Tokenizer


@dataclass
class MyTaskConfig(TranslationConfig):
    max_pairs: int  # pairs of a split that are used; 0: all


class MyTask(Translation):
    """Translation that learns from the first pairs of its text alone."""

    def __init__(self, cfg: MyTaskConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        super().__init__(cfg, make_tokenizer, batching)
        self.max_pairs = cfg.max_pairs

    def dataset(self, split: str) -> PairDataset:
        whole, kept = super().dataset(split), self.max_pairs or None
        return replace(whole, rows=whole.rows[:kept], weights=whole.weights[:kept])
