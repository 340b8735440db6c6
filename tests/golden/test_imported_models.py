"""Every model of fairseq's, as its options and weights are in a checkpoint, becomes ours with the same scores."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from app.cli import store_schema
from app.fairseq.equivalents import chosen
from app.fairseq.importing import check_sizes, load_weights
from app.fairseq.names import as_here
from app.fairseq.options import configuration_of
from app.fairseq.reading import FairseqCheckpoint, sections
from app.interfaces import Model
from app.plugins import configure
from tests.golden.cases import Case, claimed, vocabulary

DRAFTING = ("cmlm", "levenshtein", "nonautoregressive")
TRAINED = {"criterion": "cross_entropy", "optimizer": "adam"}  # what the files leave open


def imported(case: Case) -> Model:
    """The model that an import makes, without its files."""
    task_name = "translation" if "target_dict" in case.spec else "language_modeling"
    tasks = {"roberta": "masked_lm", "bart": "denoising"} | dict.fromkeys(DRAFTING, "translation_lev")
    given = {"task": tasks.get(case.spec["arch"].partition("_")[0], task_name), **TRAINED}
    given |= {"criterion": "nat_loss"} if given["task"] == "translation_lev" else {}
    options = {**case.spec["model_config"], "arch": case.spec["arch"]} | given
    content = {"args": options}
    weights = case.under("param")
    checkpoint = FairseqCheckpoint(Path("model.pt"), sections(Path("model.pt"), content), weights, None, {}, {})
    found, family = configuration_of(checkpoint, [])
    choices = {name: found.overrides[name] for name in ("model", "task", "criterion", "optimizer", "lr_scheduler")}
    node = OmegaConf.merge(chosen(choices)[0])
    for key, value in found.overrides.items():
        if "." in key:
            OmegaConf.update(node, key, value)
    OmegaConf.update(node, "task.data", None)
    values = OmegaConf.to_container(node.model, resolve=True)
    sizes = [case.spec[name]["size"] for name in ("source_dict", "target_dict", "dict") if name in case.spec]
    words = [vocabulary(size) for size in (sizes[0], sizes[-1])]
    task: Any = SimpleNamespace(source_vocabulary=words[0], target_vocabulary=words[1], classification_heads={})
    make_model = configure(values, Model, "model")
    check_sizes(make_model, task, checkpoint, family)
    model: Model = make_model(task)
    load_weights(model, as_here(weights, family, model.state_dict()), Path("model.pt"))
    return model.eval()


@pytest.mark.parametrize(
    "case",
    claimed("models", "transformer*", "lstm*", "fconv*", "lightconv*", "dynamicconv*", "roberta*", "bart"),
)
def test_scores(case: Any) -> None:
    store_schema("train")
    model = imported(case)
    given, out = case.under("in"), case.under("out")
    if "prev_output_tokens" in given:
        tokens = given["prev_output_tokens"]
        features = model.decode(tokens, model.encode(given["src_tokens"], given["src_lengths"]))
    elif getattr(model, "generates", True):
        tokens, features = given["src_tokens"], model.decode(given["src_tokens"])
    else:
        tokens = given["src_tokens"]
        features = model.encode(tokens, tokens.ne(1).sum(1)).states
    real = tokens.ne(1)
    is_adaptive = any("adaptive_softmax" in name for name in case.under("param"))  # then fairseq returns features
    theirs = out["logits"][real]
    ours = (features if is_adaptive else model.project(features))[real]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", claimed("models", "cmlm_*", "levenshtein_*", "nonautoregressive_*"))
def test_weights_find_their_places(case: Any) -> None:
    """What these models compute is compared where they are tested; here are their options and names."""
    store_schema("train")
    own = imported(case).state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in case.under("param").items() if name in own)
