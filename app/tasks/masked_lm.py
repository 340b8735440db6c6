"""Masked language modelling: one text, cut into blocks of which some tokens are hidden and are to be guessed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import BatchingConfig
from app.data.iterator import EpochIterator
from app.data.masking import MASK, MaskedBlocks, Masking
from app.data.token_blocks import BlockDataset
from app.errors import CheckpointError, ConfigError
from app.interfaces import BatchIterator, Dataset, Generator, Model, Shard, Task
from app.ranges import at_least, between, positive
from app.tasks.one_text import OneText, OneTextConfig
from app.tasks.text import Text
from app.tokenizers import Tokenizer


@dataclass
class MaskedLMConfig(OneTextConfig):
    max_positions: int  # longer lines (with complete and eos) are left out; in pieces, bos and eos counted
    mask_prob: float  # share of tokens to be guessed
    leave_unmasked_prob: float  # share of these that are shown as they are
    random_token_prob: float  # share of these that are shown as some other token
    freq_weighted_replacement: bool  # other tokens are drawn as often as the training text has them, not all alike
    mask_whole_words: bool  # choose words rather than tokens; the tokenizer must say where words start
    mask_multiple_length: int  # tokens, or words, that are chosen together
    mask_stdev: float  # standard deviation of their number; 0: always mask_multiple_length

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from positive(self, "max_positions", "mask_prob", "mask_multiple_length")
        yield from between(self, 0, 1, "mask_prob", "leave_unmasked_prob", "random_token_prob")
        yield from at_least(self, 0, "mask_stdev")
        if self.random_token_prob + self.leave_unmasked_prob > 1:
            yield (
                f"random_token_prob={self.random_token_prob}, leave_unmasked_prob={self.leave_unmasked_prob}: "
                "are shares of the same tokens; together they must not be more than 1"
            )
        if self.tokens_per_sample < 2:
            yield f"tokens_per_sample={self.tokens_per_sample}: must be 2 or more, for bos and a token"
        if self.tokens_per_sample > self.max_positions:
            limit = f"max_positions={self.max_positions}"
            yield f"tokens_per_sample={self.tokens_per_sample}: must not be more than {limit}"


class MaskedLM(Task):
    """Hidden tokens of one text are guessed from all around them (Liu et al., 2019, sec. 4.1).

    Blocks of `SPLIT.LANG[.gz]` with bos in front are masked anew in every epoch.
    A block's mask is a function of seed, epoch and the block's number, as in fairseq; that of validation is always the
    same. `<mask>` is the vocabulary's last entry.
    """

    has_references = False
    generates = False
    predicts = "masked tokens"

    def __init__(self, cfg: MaskedLMConfig, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        self.cfg, self.batching = cfg, batching
        self._make_tokenizer = make_tokenizer
        self._one_text = OneText(cfg, make_tokenizer, symbols=(MASK,))

    @property
    def text(self) -> Text:
        return self._one_text.text

    def prepare(self, cache_dir: Path) -> None:
        if self.cfg.mask_whole_words:
            self._make_tokenizer().begins_word(MASK)  # refuses before anything is learnt
        self._one_text.prepare(cache_dir)
        self.source_vocabulary = self.target_vocabulary = self.text.vocabulary

    def splits(self) -> list[str]:
        """Every split that some directory has."""
        return self._one_text.splits()

    def save(self, directory: Path) -> None:
        self._one_text.save(directory)

    def load(self, directory: Path) -> None:
        """Raises CheckpointError where the vocabulary has no `<mask>`."""
        self._one_text.load(directory)
        self.source_vocabulary = self.target_vocabulary = self.text.vocabulary
        if MASK not in self.text.vocabulary.pieces:
            raise CheckpointError(f"{directory}: the vocabulary has no {MASK}; take a run of task masked_lm")

    def dataset(self, split: str) -> MaskedBlocks:
        size, limit = self.cfg.tokens_per_sample - 1, f"max_positions={self.cfg.max_positions}"
        store, slices, weights, left_out = self._one_text.blocks(split, size, self.cfg.max_positions - 1, limit)
        blocks = BlockDataset(store, slices, weights, "future", context=0, add_bos=True, left_out=left_out)
        return MaskedBlocks(blocks, self._masking())

    def _masking(self) -> Masking:
        cfg, vocabulary = self.cfg, self.text.vocabulary
        return Masking(
            self.batching.seed,
            vocabulary.index(MASK),
            cfg.mask_prob,
            cfg.leave_unmasked_prob,
            cfg.random_token_prob,
            cfg.mask_multiple_length,
            cfg.mask_stdev,
            Masking.replacement_frequencies(vocabulary, cfg.freq_weighted_replacement),
            self.text.word_begins() if cfg.mask_whole_words else None,
        )

    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        assert isinstance(dataset, MaskedBlocks)
        return EpochIterator(dataset, self.batching, epoch, shard)

    def build_generator(self, models: list[Model], search: Any) -> Generator:
        raise ConfigError(["task masked_lm generates no text; measure the run with app.evaluate"])

    def references(self, split: str) -> None:
        """None: nothing is generated."""
