"""Translation for models that refine drafts: the decoder is given a noised target."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.config import BatchingConfig
from app.data.dataset import PairDataset
from app.data.drafts import NOISES, DraftSamples
from app.data.iterator import EpochIterator
from app.interfaces import BatchIterator, Dataset, Shard
from app.ranges import one_of
from app.tasks.translation import Translation, TranslationConfig
from app.tokenizers import Tokenizer


@dataclass
class TranslationLevConfig(TranslationConfig):
    noise: str  # what is done to targets: random_delete, random_mask, full_mask (all of it) or no_noise

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from one_of(self, "noise", *NOISES)
        for name, off in (("load_alignments", False), ("prepend_bos", False), ("langs", None)):
            if getattr(self, name) != off:
                yield f"{name}={getattr(self, name)}: is of task translation alone; models of drafts have no use for it"


class TranslationLev(Translation):
    """`translation` with bos on both sides and drafts for the decoder; `max_..._positions` do not count that bos."""

    refines = True

    def __init__(self, cfg: TranslationLevConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        super().__init__(cfg, make_tokenizer, batching)
        self._noise = NOISES[cfg.noise]

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, PairDataset)
        drafts = DraftSamples(dataset, self._noise, self.batching.seed)
        return EpochIterator(drafts, self.batching, epoch, shard)
