"""The files that `app.new` writes: for every kind a small plug-in that trains as it is, to be changed."""

from typing import NamedTuple


class Template(NamedTuple):
    """`$Class`, `$name` and `$package` stand for the names that the user chose."""

    python: str
    yaml: str


MODEL = '''"""$Class: say here what the model is, and where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.interfaces import Cache, EncoderOut, Model, Task
from app.ranges import positive, probability


@dataclass
class ${Class}Config:
    embed_dim: int  # width of embeddings and states
    dropout: float  # after embeddings and on features
    max_source_positions: int  # longest source, eos included
    max_target_positions: int  # longest target, eos included

    def check(self) -> Iterator[str]:
        yield from positive(self, "embed_dim")
        yield from probability(self, "dropout")


class ${Class}Cache:
    """The decoder's state after the newest token, [1, N, D]."""

    state: Tensor | None = None

    def reorder(self, rows: Tensor) -> None:
        self.state = None if self.state is None else self.state.index_select(1, rows)

    def keep_sentences(self, sentences: Tensor) -> None:
        """There is nothing of the encoder in it."""


class $Class(Model):
    """The mean of the source's embeddings, and a GRU that sees it at every target position."""

    def __init__(self, cfg: ${Class}Config, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        self.pad = source.pad
        self.embed_source = nn.Embedding(len(source), cfg.embed_dim, source.pad)
        self.embed_target = nn.Embedding(len(target), cfg.embed_dim, target.pad)
        self.decoder = nn.GRU(2 * cfg.embed_dim, cfg.embed_dim, batch_first=True)
        self.dropout = nn.Dropout(cfg.dropout)
        self.output = nn.Linear(cfg.embed_dim, len(target))

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        return EncoderOut(self.dropout(self.embed_source(src_tokens)), src_tokens.ne(self.pad))

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        assert encoder_out is not None
        keep = encoder_out.keep.unsqueeze(-1)  # [M, S, 1]
        mean = (encoder_out.states * keep).sum(1) / keep.sum(1)  # [M, D]
        rows, length = prev_output_tokens.shape  # a sentence's hypotheses stand side by side
        context = mean.repeat_interleave(rows // len(mean), dim=0)[:, None].expand(-1, length, -1)  # [B, T, D]
        x = torch.cat([self.dropout(self.embed_target(prev_output_tokens)), context], dim=-1)
        if isinstance(cache, ${Class}Cache):
            x, cache.state = self.decoder(x, cache.state)
        else:
            x, _ = self.decoder(x)
        return self.dropout(x)

    def new_cache(self) -> ${Class}Cache:
        return ${Class}Cache()

    def project(self, features: Tensor) -> Tensor:
        return self.output(features)
'''

CRITERION = '''"""$Class: say here what the loss is, and where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import token_logs, token_loss
from app.ranges import probability


@dataclass
class ${Class}Config:
    label_smoothing: float  # probability that is spread over the words that are not the target

    def check(self) -> Iterator[str]:
        yield from probability(self, "label_smoothing")


class $Class(Criterion):
    """Label-smoothed cross-entropy, summed over target tokens."""

    def __init__(self, cfg: ${Class}Config, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad

    def forward(self, model: Model, batch: Batch) -> Loss:
        sums = token_loss(model, model(batch), batch.target, self.pad, self.cfg.label_smoothing)
        return Loss(sums.loss, batch.num_tokens, token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch)))
'''

TASK = '''"""$Class: say here what is learnt from which data."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.config import BatchingConfig
from app.data.dataset import PairDataset
from app.tasks.translation import Translation, TranslationConfig
from app.tokenizers import Tokenizer


@dataclass
class ${Class}Config(TranslationConfig):
    max_pairs: int  # pairs of a split that are used; 0: all


class $Class(Translation):
    """Translation that learns from the first pairs of its text alone."""

    def __init__(self, cfg: ${Class}Config, make_tokenizer: Callable[[], Tokenizer], batching: BatchingConfig):
        super().__init__(cfg, make_tokenizer, batching)
        self.max_pairs = cfg.max_pairs

    def dataset(self, split: str) -> PairDataset:
        whole, kept = super().dataset(split), self.max_pairs or None
        return replace(whole, rows=whole.rows[:kept], weights=whole.weights[:kept])
'''

OPTIMIZER = '''"""$Class: say here what the step is, and where it comes from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.optimizers import OneByOne
from app.ranges import positive, probability


@dataclass
class ${Class}Config:
    lr: float  # learning rate that schedulers start from
    momentum: float  # decay of the running mean of gradients

    def check(self) -> Iterator[str]:
        yield from positive(self, "lr")
        yield from probability(self, "momentum")


class $Class(OneByOne):
    """A step along the running mean of gradients, of the size that its root mean square is 1 times the rate."""

    def __init__(self, cfg: ${Class}Config, params: Iterable[Any]):
        self.cfg = cfg
        super().__init__(params, {"lr": cfg.lr})

    def update(self, p: Tensor, grad: Tensor, lr: float) -> None:
        mean = self.state[p].setdefault("mean", torch.zeros_like(p))  # what is in `state` is saved with checkpoints
        mean.lerp_(grad, 1 - self.cfg.momentum)
        p.sub_(lr * mean / (mean.square().mean().sqrt() + 1e-8))
'''

LR_SCHEDULER = '''"""$Class: say here what the learning rate does, and where that comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.interfaces import LRScheduler
from app.ranges import at_least


@dataclass
class ${Class}Config:
    warmup_updates: int  # updates of linear warm-up; the rate is constant from then on

    def check(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup_updates")


class $Class(LRScheduler):
    """A pure function of the update's number, so that there is nothing to save."""

    def __init__(self, cfg: ${Class}Config, optimizer: torch.optim.Optimizer):
        self.warmup = cfg.warmup_updates
        super().__init__(cfg, optimizer)

    def lr_at(self, num_updates: int) -> float:
        return self.base_lr * min(1.0, (num_updates + 1) / (self.warmup + 1))
'''

TOKENIZER = '''"""$Class: say here what the pieces are."""

from dataclasses import dataclass

from app.tokenizers import Tokenizer


@dataclass
class ${Class}Config:
    lowercase: bool  # capitals are not told apart


class $Class(Tokenizer):
    """Pieces are what stands between spaces."""

    def __init__(self, cfg: ${Class}Config):
        super().__init__(cfg)

    def encode(self, line: str) -> list[str]:
        return (line.lower() if self.cfg.lowercase else line).split()

    def decode(self, pieces: list[str]) -> str:
        return " ".join(pieces)
'''

SEARCH = '''"""$Class: say here how outputs are found, and where that comes from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.interfaces import Model
from app.ranges import positive
from app.search import Hypothesis, Search


@dataclass
class ${Class}Config:
    max_len: int  # longest output with eos

    def check(self) -> Iterator[str]:
        yield from positive(self, "max_len")


class $Class(Search):
    """The first model's best word at every step. A sentence that has ended goes on, and what follows eos is cut off."""

    def __init__(self, cfg: ${Class}Config, vocabulary: Vocabulary):
        self.cfg, self.vocabulary = cfg, vocabulary

    @torch.inference_mode()
    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        model, eos = models[0], self.vocabulary.eos
        encoder_out, cache = model.encode(src_tokens, src_lengths), model.new_cache()
        token = src_tokens.new_full((len(src_tokens), 1), eos)
        tokens, scores = [], []
        for step in range(min(self.cfg.max_len, model.max_positions[1])):
            log_probs = model.project(model.decode(token, encoder_out, cache)[:, 0]).log_softmax(dim=-1)  # [B, V]
            log_probs[:, self.vocabulary.pad] = -torch.inf
            token = log_probs.argmax(dim=-1, keepdim=True)  # [B, 1]
            if prefix_tokens is not None and step < prefix_tokens.size(1):
                given = prefix_tokens[:, step : step + 1]
                token = torch.where(given.eq(self.vocabulary.pad), token, given)
            tokens.append(token)
            scores.append(log_probs.gather(1, token))
        return [[self._cut(*row)] for row in zip(torch.cat(tokens, dim=1), torch.cat(scores, dim=1))]

    def _cut(self, tokens: Tensor, scores: Tensor) -> Hypothesis:
        """[T], [T] -> the hypothesis up to its eos, which is put in the last place where there is none."""
        ends = tokens.eq(self.vocabulary.eos).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(tokens)
        tokens = torch.cat([tokens[: length - 1], tokens.new_tensor([self.vocabulary.eos])])
        return Hypothesis(tokens, float(scores[:length].mean()), scores[:length])
'''

SCORER = '''"""$Class: say here what is measured."""

from dataclasses import dataclass

from app.scorers import Score, Scorer


@dataclass
class ${Class}Config:
    ignore_case: bool  # capitals are not told apart


class $Class(Scorer):
    """How many outputs are their references, in percent."""

    name = "$name"
    higher_is_better = True

    def __init__(self, cfg: ${Class}Config):
        self.cfg = cfg

    def score(self, hypotheses: list[str], references: list[str]) -> Score:
        pairs = list(zip(hypotheses, references, strict=True))
        if self.cfg.ignore_case:
            pairs = [(ours.lower(), theirs.lower()) for ours, theirs in pairs]
        value = 100 * sum(ours == theirs for ours, theirs in pairs) / len(pairs)
        signature = f"ignore_case:{self.cfg.ignore_case}"
        return Score(self.name, value, signature, f"{self.name} = {value:.2f} ({signature})")
'''

TRACKER = '''"""$Class: say here where numbers go."""

from dataclasses import dataclass
from pathlib import Path

from app.trackers import Tracker


@dataclass
class ${Class}Config:
    file_name: str  # in the run directory


class $Class(Tracker):
    """A line of text for every validation."""

    def __init__(self, cfg: ${Class}Config, run_dir: Path):
        self.path = run_dir / cfg.file_name

    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        if kind == "valid":
            numbers = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"update {num_updates}: {numbers}\\n")
'''

CALLBACK = '''"""$Class: say here what is done, and at which moment of training."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.callbacks import Callback
from app.ranges import positive

logger = logging.getLogger(__name__)


@dataclass
class ${Class}Config:
    every: int  # updates between two lines

    def check(self) -> Iterator[str]:
        yield from positive(self, "every")


class $Class(Callback):
    """Logs the size of the weights. `trainer` is `app.trainer.Trainer`; see `app.callbacks` for the other moments."""

    def __init__(self, cfg: ${Class}Config):
        self.cfg = cfg

    def after_update(self, trainer: Any) -> None:
        if trainer.num_updates % self.cfg.every == 0:
            size = sum(float(p.detach().square().sum()) for p in trainer.model.parameters()) ** 0.5
            logger.info("update %d: the weights have the 2-norm %.4f", trainer.num_updates, size)
'''

TARGET = "_target_: $package.$name.$Class\n"
POSITIONS = "".join(f"max_{side}_positions: $${{task.max_{side}_positions}}\n" for side in ("source", "target"))
TEMPLATES = {
    "model": Template(MODEL, TARGET + "embed_dim: 128\ndropout: 0.1\n" + POSITIONS),
    "criterion": Template(CRITERION, TARGET + "label_smoothing: 0.1\n"),
    "task": Template(TASK, "defaults: [translation, _self_]\n\n" + TARGET + "max_pairs: 0\n"),
    "optimizer": Template(OPTIMIZER, TARGET + "lr: 1.0e-3\nmomentum: 0.9\n"),
    "lr_scheduler": Template(LR_SCHEDULER, TARGET + "warmup_updates: 400\n"),
    "tokenizer": Template(TOKENIZER, TARGET + "lowercase: false\n"),
    "search": Template(SEARCH, TARGET + "max_len: 100\n"),
    "scorer": Template(SCORER, "# @package scorer.$name\n" + TARGET + "ignore_case: false\n"),
    "tracker": Template(TRACKER, "# @package tracker.$name\n" + TARGET + "file_name: $name.txt\n"),
    "callbacks": Template(CALLBACK, "# @package callbacks.$name\n" + TARGET + "every: 100\n"),
}
