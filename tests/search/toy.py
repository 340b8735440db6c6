"""A model that is a table, so that every output's probability can be worked out by hand."""

from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.interfaces import EncoderOut, LanguageModel, Model
from app.plugins import configure
from app.search import Hypothesis, Search
from app.search.beam import BeamConfig, BeamSearch

VOCABULARY = Vocabulary(["a", "b", "c"], [1, 1, 1])
CONF = Path(__file__).parents[2] / "conf" / "search"
PAD, EOS = VOCABULARY.pad, VOCABULARY.eos


class TableCache:
    """What each row has decoded so far: enough to see that a search keeps its rows in order."""

    def __init__(self) -> None:
        self.tokens: Tensor | None = None
        self.row_steps = 0

    def reorder(self, rows: Tensor) -> None:
        assert self.tokens is not None
        self.tokens = self.tokens[rows]

    def keep_sentences(self, sentences: Tensor) -> None: ...

    def append(self, tokens: Tensor) -> Tensor:
        self.tokens = tokens if self.tokens is None else torch.cat([self.tokens, tokens], dim=1)
        self.row_steps += tokens.size(0)
        return self.tokens


class TableModel(Model):
    """Scores depend on the source's first token, on the previous token, and on the number of tokens so far."""

    max_positions = (50, 50)

    def __init__(self, seed: int = 0, scale: float = 2.0):
        super().__init__(None, None)
        size = len(VOCABULARY)
        noise = torch.Generator().manual_seed(seed)
        self.table = torch.randn(size, 16, size, size, generator=noise) * scale
        self.last_cache = TableCache()

    def encode(self, src_tokens, src_lengths):
        first = src_tokens.where(src_tokens != PAD, 0).max(dim=1).values
        return EncoderOut(first[:, None, None].float(), src_tokens != PAD)

    def new_cache(self):
        self.last_cache = TableCache()
        return self.last_cache

    def decode(self, prev_output_tokens, encoder_out=None, cache=None):
        sofar = prev_output_tokens if cache is None else cache.append(prev_output_tokens)
        source = torch.zeros(sofar.size(0)) if encoder_out is None else encoder_out.states[:, 0, 0]
        source = source.long().repeat_interleave(sofar.size(0) // source.size(0))
        mix = (sofar * torch.arange(1, sofar.size(1) + 1)).cumsum(dim=1) % 16  # depends on everything so far
        return self.table[source.unsqueeze(1), mix, sofar][:, -prev_output_tokens.size(1) :]

    def project(self, features):
        return features


class TableLanguageModel(TableModel, LanguageModel):
    """The same; what a search is given as the beginning of its output is taken for a line to continue."""


def values(option: str) -> dict[str, Any]:
    """The values of `conf/search/OPTION.yaml`, those that it takes from others included."""
    own = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"))
    assert isinstance(own, dict)
    parents = [parent for parent in own.pop("defaults", []) if parent != "_self_"]
    return {key: value for each in [*map(values, parents), own] for key, value in each.items()}


def strategy(option: str, vocabulary: Vocabulary = VOCABULARY, **changes) -> Search:
    """The search of `conf/search/OPTION.yaml`, with changes."""
    made = configure({**values(option), **changes}, Search, "search")(vocabulary)
    assert isinstance(made, Search)
    return made


def config(**changes) -> BeamConfig:
    """The values of `conf/search/beam.yaml`, with changes."""
    given = values("beam")
    del given["_target_"]
    return BeamConfig(**{**given, **changes})


def batch(sources: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Sources given as lists of ids, without eos, as a batch padded at the end; and their lengths with eos."""
    lengths = torch.tensor([len(source) + 1 for source in sources])
    tokens = torch.full((len(sources), int(lengths.max())), PAD)
    for row, source in enumerate(sources):
        tokens[row, : len(source) + 1] = torch.tensor([*source, EOS])
    return tokens, lengths


def search(model: Model | list[Model], sources: list[list[int]], prefix=None, **changes) -> list[list[Hypothesis]]:
    """The hypotheses for sources given as lists of ids, without eos, padded at the end."""
    tokens, lengths = batch(sources)
    models = model if isinstance(model, list) else [model]
    changes.setdefault("nbest", changes.get("beam", 5))
    return BeamSearch(config(**changes), VOCABULARY).generate(models, tokens, lengths, prefix)


def log_prob(model: Model, source: list[int] | None, output: list[int]) -> float:
    """The log-probability of an output (with eos), decoded by force; without a source, as a language model's."""
    src = torch.tensor([[*(source or []), EOS]])
    encoder_out = None if source is None else model.encode(src, torch.tensor([src.size(1)]))
    features = model.decode(torch.tensor([[EOS, *output[:-1]]]), encoder_out)
    log_probs = model.project(features).log_softmax(dim=-1)[0]
    return log_probs[range(len(output)), output].sum().item()


def all_outputs(longest: int) -> list[list[int]]:
    """Every output of 1 to `longest` tokens, eos after them. <s> is a token like others, <pad> never one."""
    tokens = [t for t in range(len(VOCABULARY)) if t not in (PAD, EOS)]
    return [[*words, EOS] for n in range(1, longest + 1) for words in product(tokens, repeat=n)]
