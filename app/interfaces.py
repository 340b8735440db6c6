"""The five kinds of plug-in and what the trainer asks of each. Read this page first.

Letters in shapes: B sentences, S source positions, T target positions, D width, V vocabulary.
Every plug-in is a class whose constructor takes its own config dataclass first, as `cfg`, and run-time objects after
it, positionally. It is chosen in `conf/<kind>/*.yaml` by `_target_` and made by `app.plugins.configure`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from app.config import BatchingConfig
from app.data.batch import Batch
from app.data.vocabulary import Vocabulary
from app.errors import ConfigError


class EncoderOut(NamedTuple):
    """What the decoder sees of the source."""

    states: Tensor  # [B, S, D]
    keep: Tensor  # [B, S], False at padding
    more: tuple[Tensor, ...] = ()  # what else this model's decoder needs, [B, ...] each

    def select(self, sentences: Tensor) -> "EncoderOut":
        """The rows `sentences` [M], which may repeat."""
        return EncoderOut(self.states[sentences], self.keep[sentences], tuple(each[sentences] for each in self.more))


class Cache(Protocol):
    """Keys and values of the positions decoded so far, a row a hypothesis. `Model.decode` appends to it."""

    def reorder(self, rows: Tensor) -> None:
        """Make row `rows[i]` the new row i. `rows` [N] may repeat rows and leave rows out.

        Hypotheses stay with their sentence: where there are K of each, the new rows i * K ... are of one sentence too.
        """

    def keep_sentences(self, sentences: Tensor) -> None:
        """Make sentence `sentences[i]` the new sentence i of the encoder's keys and values. `sentences` [M].

        The caller keeps the same rows of its `EncoderOut`, and keeps the hypotheses' rows by `reorder`.
        """


class Model(nn.Module, ABC):
    """Scores of the next token. See `LanguageModel` for one without an encoder, `RefiningModel` for whole outputs.

    `refines` is said by model, task, criterion and search alike: all four deal with drafts, or none does.
    """

    generates: ClassVar[bool] = True  # whether it has a decoder; where not, `decode` and `new_cache` raise ConfigError
    refines: ClassVar[bool] = False
    has_pairs: ClassVar[bool] = False  # whether it is another model for each pair of languages: `of_pair` gives them
    max_positions: tuple[int, int]  # the longest source and target that can be represented, eos included

    def __init__(self, cfg: Any, task: "Task"):
        super().__init__()

    @abstractmethod
    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        """[B, S], [B] -> states [B, S, D]. Padding may stand on either side."""

    @abstractmethod
    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Features [B, T, D] at every position of `prev_output_tokens` [B, T].

        With a cache T = 1: the newest token of each row; the cache grows by it. B may then be a multiple K of the
        encoder's sentences: rows i * K ... i * K + K - 1 are hypotheses of sentence i.
        """

    @abstractmethod
    def new_cache(self) -> Cache:
        """An empty cache for `decode`."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., V]: scores whose softmax is the distribution of the next token. May be overwritten."""

    @property
    def output_projection(self) -> nn.Linear | None:
        """The linear layer that `project` applies, for a loss that fuses it; None where `project` is something else."""
        return None

    def cross_attention(self, prev_output_tokens: Tensor, encoder_out: EncoderOut) -> Tensor | None:
        """[B, T] -> attention to the source [B, T, S], mean over heads, for alignments; None where there is none."""
        return None

    def forward(self, batch: Batch) -> Tensor:
        """Features [B, T, D] for a training batch (teacher forcing)."""
        return self.decode(batch.prev_output_tokens, self.encode(batch.src_tokens, batch.src_lengths))


class LanguageModel(Model):
    """A model of the target alone: what it is given of a source, it leaves aside."""

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        """There is nothing to encode: no positions, [B, 0, 1]."""
        none = src_lengths.new_empty(len(src_tokens), 0)
        return EncoderOut(none.unsqueeze(-1).float(), none.bool())

    def forward(self, batch: Batch) -> Tensor:
        """Features [B, T, D] for a training batch (teacher forcing)."""
        return self.decode(batch.prev_output_tokens)


class Draft(NamedTuple):
    """Outputs that are being refined: bos, pieces, eos, padding; unk where a piece is still to be found."""

    tokens: Tensor  # [B, T]
    scores: Tensor  # [B, T] log-probability that each was chosen with; 0 where none was

    def select(self, rows: Tensor) -> "Draft":
        return Draft(self.tokens[rows], self.scores[rows])


class Refinement(NamedTuple):
    """Which of the steps of a search this is, and what the search asks for."""

    step: int  # from 0
    max_step: int  # how many there are at most
    eos_penalty: float  # subtracted from the log-probability of inserting nothing
    max_ratio: float  # longest output as a multiple of its source


class Prediction(NamedTuple):
    """One of the things that a `RefiningModel` learns: a linear classification of N positions into C classes."""

    features: Tensor  # [N, D]
    weight: Tensor  # [C, D]: scores are features times this
    target: Tensor  # [N] classes, or [N, C] distributions
    label_smoothing: float | None = None  # None: the criterion's
    factor: float = 1.0  # weight in the loss
    is_word: bool = False  # of pieces: what perplexity is measured by


class RefiningModel(Model):
    """A model of whole outputs, every position at once, which are drafted and refined: the non-autoregressive ones.

    Here source and target have bos in front; `Batch.prev_output_tokens` is a noised target [B, T'], the draft.
    """

    refines = True
    predicts_length: ClassVar[bool]  # whether a first draft has a length, so that several can be tried

    @abstractmethod
    def predictions(self, batch: Batch) -> dict[str, Prediction]:
        """What is learnt from a batch, by name."""

    @abstractmethod
    def initialize(self, encoder_out: EncoderOut, beam: int = 1) -> Draft:
        """The first drafts [B * beam, T]; those of a sentence stand side by side and differ in length."""

    @abstractmethod
    def refine(self, draft: Draft, encoder_out: EncoderOut, refinement: Refinement) -> Draft:
        """[B, T] -> [B, T']: better drafts. A row depends on no other row, nor on padding."""

    def new_cache(self) -> Cache:
        raise NotImplementedError("every position sees every other: there is nothing to keep from step to step")


class Classifies(Protocol):
    """What a model with classification heads offers (`Task.classification_heads`)."""

    def classify(self, batch: Batch, head: str) -> Tensor:
        """[rows, C]: the scores of each row's classes; C = 1 for a number, or for a candidate."""


class Loss(NamedTuple):
    """What a criterion returns. Everything is a sum, so that it may be added over batches and workers."""

    value: Tensor  # scalar, in nats, SUMMED over what `sample_size` counts
    sample_size: int  # what gradients are divided by: target tokens, or sentences
    logs: dict[str, Tensor | float]  # sums too; at least loss, nll_loss, ntokens, nsentences

    def detach(self) -> "Loss":
        return Loss(self.value.detach(), self.sample_size, self.logs)


class Criterion(nn.Module, ABC):
    """The training objective."""

    teacher_path: str | None = None  # a run whose model is given to `teach` before training
    needs: ClassVar[str | None] = None  # a method beyond `Model`'s that it calls; None: every model will do
    needs_adaptive_softmax: ClassVar[bool] = False  # whether the model's `adaptive_softmax_cutoff` must be set
    predicts: ClassVar[str] = "tokens"  # what `batch.target` holds; the task's `predicts` must be the same
    refines: ClassVar[bool] = False  # see `Model`

    def __init__(self, cfg: Any, task: "Task"):
        super().__init__()

    @abstractmethod
    def forward(self, model: Model, batch: Batch) -> Loss: ...

    def teach(self, teacher: Model) -> None:
        """Learn from this model too; only where `teacher_path` names one."""


class Shard(NamedTuple):
    """Which part of every global batch this worker takes."""

    rank: int
    world_size: int
    even: bool = False  # the last batches are cut so that no worker is without one


class Dataset(Protocol):
    """Numbered samples of one split."""

    def __len__(self) -> int: ...


class BatchIterator(Protocol):
    """One epoch's batches, in an order that is a pure function of (seed, epoch). Resumable at any batch."""

    epoch: int
    num_samples: int  # samples of the epoch that were handed out so far, over all shards

    @property
    def padding(self) -> float:
        """The share of positions that is padding, 0..1, in this epoch's batches, or in those that are at hand."""

    def longest(self) -> Batch:
        """The batch with the most positions, of any shard, of the epoch or of what is at hand of it."""

    def halves(self, batch: Batch) -> list[Batch]:
        """The same samples in two batches, for memory that does not hold them in one."""

    def is_done(self) -> bool:
        """Whether no step is left."""

    def steps(self) -> Iterator[Batch | None]:
        """This shard's batch in every step that is left; None where only others have one."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are left for this shard."""

    def state_dict(self) -> dict[str, int]:
        """{"epoch", "num_samples", ...}: position in samples, so that the number of workers may change."""

    def load_state_dict(self, state: dict[str, int]) -> None: ...


class Generator(Protocol):
    """Models, a search strategy and the task's text, put together: lines in, lines out, in the same order."""

    def generate(self, lines: list[str]) -> list[list["Translation"]]:
        """The n best translations of every line, best first; one list a line, never fewer."""

    def too_long(self, lines: list[str]) -> list[int]:
        """The numbers, from 0, of the lines that `generate` refuses."""


class Translation(NamedTuple):
    """One hypothesis as text, with its numbers."""

    text: str  # detokenised
    pieces: list[str]  # before detokenisation, without eos
    score: float  # log-probability (natural), normalised by length
    positional_scores: list[float]  # log-probability of each piece and of eos
    source_pieces: list[str]
    alignment: list[int] | None = None  # for each piece, the source piece attended most
    attention: list[list[float]] | None = None  # for each piece, the weights of the source pieces and of eos
    history: list[str] | None = None  # the text after each step of a search that refines, where asked for


class Backward(Protocol):
    """The optimizer as a training step sees it: what scales the loss, if the precision needs it, and backpropagates."""

    def autocast(self) -> AbstractContextManager[Any]: ...

    def backward(self, loss: Tensor) -> None: ...


class Task(ABC):
    """Stores vocabularies, loads data, makes batches, and says what a step is."""

    has_references: ClassVar[bool] = True  # whether its splits have texts that outputs can be scored against
    generates: ClassVar[bool] = True  # whether models make text of it; where not, `build_generator` raises ConfigError
    predicts: ClassVar[str] = "tokens"  # what its batches' `target` holds; the criterion's must be the same
    refines: ClassVar[bool] = False  # see `Model`

    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    has_pairs: ClassVar[bool] = False  # whether it may have several pairs of languages
    lang_pairs: Sequence[str] = ()  # their names, such as de-en, where it has
    classification_heads: Mapping[str, int] = MappingProxyType({})  # that a model gets: name and number of classes

    @abstractmethod
    def __init__(self, cfg: Any, make_tokenizer: Callable[[], Any], batching: BatchingConfig): ...

    @abstractmethod
    def prepare(self, cache_dir: Path) -> None:
        """Learn tokenizers and vocabularies and encode the data, or find it all in the cache. May take minutes."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write tokenizers and vocabularies, so that a run directory needs nothing else."""

    @abstractmethod
    def load(self, directory: Path) -> None:
        """Read what `save` wrote; `prepare` is not needed then."""

    @abstractmethod
    def dataset(self, split: str) -> Dataset: ...

    @abstractmethod
    def get_batch_iterator(
        self, dataset: Dataset, epoch: int | None = None, shard: Shard = Shard(0, 1)
    ) -> BatchIterator:
        """The batches of one epoch; with `epoch=None` in a fixed order, every sample once (validation)."""

    def train_step(self, batch: Batch, model: Model, criterion: Criterion, optimizer: Backward) -> Loss:
        """Forward and backward of one batch; gradients are added to what is there."""
        with optimizer.autocast():
            loss: Loss = criterion(model, batch)
        optimizer.backward(loss.value)
        return loss.detach()

    def valid_step(self, batch: Batch, model: Model, criterion: Criterion, optimizer: Backward) -> Loss:
        """Forward only, in evaluation mode."""
        with torch.inference_mode(), optimizer.autocast():
            loss: Loss = criterion(model, batch)
        return loss

    def of_pair(self, pair: str | None) -> "Task":
        """This task for one of its pairs of languages alone; None: the only one. `ConfigError` for one it has not."""
        if pair is not None:
            raise ConfigError([f"lang_pair={pair}: {type(self).__name__} has no pairs to choose from; leave it out"])
        return self

    @abstractmethod
    def build_generator(self, models: list[Model], search: Any) -> Generator: ...

    @abstractmethod
    def references(self, split: str) -> tuple[list[str], list[str]] | None:
        """The raw source and target lines of a split, untouched, for scoring; None where the task has none."""


class LRScheduler(ABC):
    """Sets the learning rate of an optimizer. Implement `lr_at`; override `step` only if validation matters."""

    def __init__(self, cfg: Any, optimizer: torch.optim.Optimizer):
        self.cfg, self.optimizer = cfg, optimizer
        self.base_lr: float = optimizer.defaults["lr"]
        self.step_update(0)

    @abstractmethod
    def lr_at(self, num_updates: int) -> float:
        """The learning rate after `num_updates` updates, which the next update uses."""

    def step_update(self, num_updates: int) -> None:
        """Called after every update, and once with 0."""
        self.set_lr(self.lr_at(num_updates))

    def step(self, epoch: int, valid_loss: float | None) -> None:
        """Called after epoch number `epoch` (from 1). `valid_loss`: the checkpoint metric of its validation, if any."""

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
