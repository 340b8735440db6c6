"""Language modelling: one text, cut into blocks whose every token is predicted from those before it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.config import BatchingConfig
from app.data.iterator import EpochIterator
from app.data.token_blocks import TARGETS, BlockDataset
from app.interfaces import BatchIterator, Dataset, Generator, Model, Shard, Task
from app.ranges import at_least, positive
from app.search import Search
from app.tasks.generator import TextGenerator
from app.tasks.one_text import OneText, OneTextConfig
from app.tasks.text import Text
from app.tokenizers import Tokenizer


@dataclass
class LanguageModelingConfig(OneTextConfig):
    context_window: int  # tokens before a block that evaluation shows the model and does not score
    self_target: bool  # predict the newest token itself
    future_target: bool  # predict the token after it: what is done where none of the three is set
    past_target: bool  # predict the token before it
    add_bos_token: bool  # bos in front of every block
    max_target_positions: int  # longer lines (with complete and eos) are left out; in pieces, eos counted

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "max_target_positions")
        yield from at_least(self, 0, "context_window")
        if self.context_window + self.add_bos_token >= self.tokens_per_sample:
            yield f"context_window={self.context_window}: must leave room in tokens_per_sample={self.tokens_per_sample}"
        if self.tokens_per_sample > self.max_target_positions:
            limit = f"max_target_positions={self.max_target_positions}"
            yield f"tokens_per_sample={self.tokens_per_sample}: must not be more than {limit}"
        if self.self_target + self.future_target + self.past_target > 1:
            yield "self_target, future_target, past_target: a model predicts one of them; set one alone"

    @property
    def target(self) -> str:
        """One of TARGETS."""
        return next((kind for kind in TARGETS if getattr(self, f"{kind}_target")), "future")


class LanguageModeling(Task):
    """Blocks of one text."""

    has_references = False

    def __init__(self, cfg: LanguageModelingConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        self.cfg, self.batching = cfg, batching
        self._one_text = OneText(cfg, make_tokenizer)

    @property
    def text(self) -> Text:
        return self._one_text.text

    def prepare(self, cache_dir: Path) -> None:
        self._one_text.prepare(cache_dir)
        self.source_vocabulary = self.target_vocabulary = self.text.vocabulary

    def splits(self) -> list[str]:
        """Every split that some directory has."""
        return self._one_text.splits()

    def save(self, directory: Path) -> None:
        self._one_text.save(directory)

    def load(self, directory: Path) -> None:
        self._one_text.load(directory)
        self.source_vocabulary = self.target_vocabulary = self.text.vocabulary

    def dataset(self, split: str) -> BlockDataset:
        """The split's blocks; those of every split but the training one have a context window."""
        cfg = self.cfg
        context = 0 if split == cfg.train_split else cfg.context_window
        shown = context + cfg.add_bos_token
        limit = f"max_target_positions={cfg.max_target_positions}"
        blocks = self._one_text.blocks(split, cfg.tokens_per_sample - shown, cfg.max_target_positions - shown, limit)
        store, slices, weights, left_out = blocks
        return BlockDataset(store, slices, weights, cfg.target, context, cfg.add_bos_token, left_out)

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, BlockDataset)
        return EpochIterator(dataset, self.batching, epoch, shard)

    def build_generator(self, models: list[Model], search: Search) -> Generator:
        """Lines are continued."""
        longest, max_tokens = self.cfg.max_target_positions, self.batching.max_tokens_valid
        return TextGenerator(models, search, self.text, self.text, longest, max_tokens, continues=True)

    def references(self, split: str) -> None:
        """None: there is no one right continuation."""
