"""Reads the golden files: numbers that the real fairseq computed (see `docs/architecture.md`).

`$GOLDEN_DIR` names their folder; by default it is `../shared/golden` beside the project. Cases are found by listing it.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.models.transformer import Transformer, TransformerConfig

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))


@dataclass
class Case:
    """One golden case: its JSON as attributes of `spec`, its tensors by name."""

    path: Path

    @cached_property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self.path.read_text())
        return spec

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.path.with_name(self.spec["tensors_file"]))

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix/`, without it."""
        return {k.removeprefix(f"{prefix}/"): v for k, v in self.tensors.items() if k.startswith(f"{prefix}/")}

    @property
    def name(self) -> str:
        return str(self.spec["case"])


def cases(kind: str) -> list[Any]:
    """Every case of a kind as pytest parameters; one skipped parameter that says so where there are no golden files."""
    paths = sorted((GOLDEN_DIR / kind).glob("*.json"))
    if not paths:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no golden files in {GOLDEN_DIR / kind}"))]
    return [pytest.param(Case(path), id=path.stem) for path in paths]


def claimed(kind: str, *patterns: str) -> list[Any]:
    """The cases of a kind whose names fit a pattern, such as `transformer_lm*`; `!x*` takes some out again."""
    found = cases(kind)
    return [each for each in found if each.values[0] is None or fits(each.values[0], patterns)]


def fits(case: Case, patterns: Iterable[str]) -> bool:
    """Whether a case's name fits. Later patterns win."""
    chosen = False
    for pattern in patterns:
        if fnmatchcase(case.name, pattern.removeprefix("!")):
            chosen = not pattern.startswith("!")
    return chosen


def vocabulary(size: int) -> Vocabulary:
    """A vocabulary of this many symbols, the four special ones included."""
    return Vocabulary([f"w{i}" for i in range(size - 4)], [1] * (size - 4))


def task_of(case: Case) -> Any:
    """What a model or criterion asks of its task."""
    source = case.spec.get("source_dict", {}).get("size", 4)
    target = case.spec.get("target_dict", {}).get("size", 4)
    return SimpleNamespace(source_vocabulary=vocabulary(source), target_vocabulary=vocabulary(target))


OURS = {"norm_fn": "layer", "rotary_pos": False, "encoder_kv_heads": None, "decoder_kv_heads": None}  # not fairseq's
LAYER_DROP = {
    f"{side}_{name}": off
    for side in ("encoder", "decoder")
    for name, off in (("layerdrop", 0.0), ("layers_to_keep", None))
}
UNNAMED = (
    {  # what fairseq's namespace leaves out where it is the default
        "no_decoder_final_norm": False,
        "adaptive_softmax_factor": 4.0,
        "max_source_positions": 1024,
        "max_target_positions": 1024,
    }
    | OURS
    | LAYER_DROP
)


def transformer(model_config: dict[str, Any], parameters: dict[str, Tensor], task: Any) -> Transformer:
    """A Transformer with fairseq's configuration and weights."""
    given = UNNAMED | model_config
    if isinstance(given["adaptive_softmax_cutoff"], str):
        given["adaptive_softmax_cutoff"] = [int(word) for word in given["adaptive_softmax_cutoff"].split(",")]
    given["decoder_output_dim"] = int(given["decoder_output_dim"])
    cfg = TransformerConfig(**{f.name: given[f.name] for f in fields(TransformerConfig)})
    assert not list(cfg.check())
    model = Transformer(cfg, task)
    unread = ("version", "_float_tensor")
    model.load_state_dict({k: v.clone() for k, v in parameters.items() if not k.endswith(unread)}, strict=True)
    return model
