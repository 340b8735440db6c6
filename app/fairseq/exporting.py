"""A run of ours as a checkpoint of fairseq's, for those who translate or go on training with fairseq.

Names of parameters and options are fairseq's already, so that little is left to say. What was written is read again as
`app.import_fairseq` would read it: a model that fairseq would make another of is refused by the options that differ.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor

from app.assembly import ASSETS, Restored
from app.errors import ConfigError
from app.fairseq.equivalents import OURS, chosen
from app.fairseq.options import configuration_of
from app.fairseq.reading import read
from app.interfaces import Model

VERSION = 3.0  # of fairseq's modules; of older ones, or without it, fairseq thinks that they are otherwise
VERSIONED = ("encoder", "decoder", "decoder.adaptive_softmax")
TYPED = {
    "decoder.embed_tokens": "embeddings",
    "decoder.adaptive_softmax.head": "word_proj",
}  # adaptive; type of numbers
MODELS = {  # class -> fairseq's architecture
    "app.models.transformer.Transformer": "transformer",
    "app.models.transformer_lm.TransformerLM": "transformer_lm",
}
TASKS = {  # class -> fairseq's task, and the options of ours that are its too
    "app.tasks.translation.Translation": ("translation", ("source_lang", "target_lang")),
    "app.tasks.language_modeling.LanguageModeling": (
        "language_modeling",
        ("tokens_per_sample", "add_bos_token", "self_target", "future_target", "past_target"),
    ),
}
NEUTRAL = {"prepend_bos": False, "langs": None}  # options of tasks that are another task's in fairseq


def export(restored: Restored, directory: Path) -> None:
    """Write `model.pt`, without the optimizer's state, the dictionaries, and `task/` with the tokenizer.

    Raises ConfigError for what fairseq does not have.
    """
    if found := list(unknown(restored)):
        raise ConfigError(found)
    options, path = options_of(restored), directory / "model.pt"
    content = {
        "args": argparse.Namespace(**options),
        "model": weights_of(restored.model),
        "optimizer_history": [
            {
                "criterion_name": "CrossEntropyCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {},
                "num_updates": restored.checkpoint.num_updates,
            }
        ],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    torch.save(content, path)
    if found := list(differing(restored.cfg.model, path)):
        raise ConfigError(found)
    names = [f"dict.{options[f'{side}_lang']}.txt" for side in ("source", "target") if f"{side}_lang" in options]
    vocabularies = (restored.task.source_vocabulary, restored.task.target_vocabulary)
    for name, vocabulary in zip(names or ["dict.txt"], vocabularies):
        vocabulary.save(directory / name)
    shutil.copytree(restored.run_dir / ASSETS, directory / ASSETS)


def unknown(restored: Restored) -> Iterator[str]:
    """Classes that fairseq is not known to have, and options of tasks that would be another task there."""
    for kind, known in (("model", MODELS), ("task", TASKS)):
        target = getattr(restored.cfg, kind)["_target_"]
        if target not in known:
            yield f"{kind}._target_={target}: fairseq is given {', '.join(known)} only"
    for name, neutral in NEUTRAL.items():
        if restored.cfg.task.get(name, neutral) != neutral:
            yield f"task.{name}={restored.cfg.task[name]}: fairseq is not told of it here"


def options_of(restored: Restored) -> dict[str, Any]:
    """fairseq's options: the model's by their names here, and what its task must know."""
    model, task = restored.cfg.model, cast(Any, restored.task)
    name, shared = TASKS[restored.cfg.task["_target_"]]
    values = {key: getattr(task.cfg, key) for key in shared}
    for key, value in model.items():
        if key not in OURS and key != "_target_":
            values[key] = ",".join(map(str, value)) if isinstance(value, list) else value
    return values | {"arch": MODELS[model["_target_"]], "task": name, "criterion": "cross_entropy", "data": ""}


def weights_of(model: Model) -> dict[str, Tensor]:
    """Parameters by name, and the buffers that fairseq asks for."""
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    buffers = {f"{module}.version": f"{module}." for module in VERSIONED}
    buffers |= {f"{module}._float_tensor": f"{module}.{part}." for module, part in TYPED.items()}
    asked = [name for name, start in buffers.items() if any(each.startswith(start) for each in weights)]
    return weights | {name: torch.tensor([VERSION]) for name in asked}


def differing(model: dict[str, Any], path: Path) -> Iterator[str]:
    """What the options in a checkpoint make otherwise than the model's values say."""
    found, family = configuration_of(read(path), [])
    values = OmegaConf.to_container(chosen({"model": family})[0].model, resolve=True)
    assert isinstance(values, dict)
    values |= {key.removeprefix("model."): value for key, value in found.overrides.items()}
    for name, value in model.items():
        if values.get(name) != value:
            yield f"model.{name}={value}: fairseq would take it for {values.get(name)}; it cannot be exported"
