"""The real fairseq's hypotheses, case by case: tokens exactly, scores to 1e-4.

Every `generation/hypotheses*.json` of the golden directory is read. A case of a name that is not known here fails.
"""

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from app.data.vocabulary import Vocabulary
from app.models.transformer import Transformer, TransformerConfig
from app.search.beam import BeamSearch
from tests.golden.cases import GOLDEN_DIR
from tests.search.toy import config

WAITS = {  # beginning of a case's name: what it needs that is not here yet
    "lm_": "decoder-only models and shallow fusion",
    "lexical_constraints": "lexical constraints",
    "m1_lexical": "lexical constraints",
    "m2_lexical": "lexical constraints",
    "m1_diverse": "diverse beam search",
    "m2_diverse": "diverse beam search",
    "m1_length_constrained": "length-constrained beam search",
    "m2_length_constrained": "length-constrained beam search",
    "sampling_first_step": "sampling",
    "scorer_": "scores of given references",
}
OTHERWISE = {"_fairseq_cpu_as_is": "records a fault of fairseq: on a CPU its n-gram rule does nothing"}
NAMES = {  # SequenceGenerator's argument: ours
    "beam_size": "beam",
    "len_penalty": "lenpen",
    "unk_penalty": "unkpen",
    "normalize_scores": "unnormalized",
    "eos": "eos_token",
}
SAME = {
    "max_len_a",
    "max_len_b",
    "max_len",
    "min_len",
    "temperature",
    "match_source_len",
    "no_repeat_ngram_size",
    "tokens_to_suppress",
}
KEYS = {"models", "options", "call", "hypotheses", "note", "attention_argmax", "attention_shape_of_first"}


def skipped(name: str) -> bool:
    return name.startswith(tuple(WAITS)) or name.endswith(tuple(OTHERWISE))


def golden_cases():
    """(file, case name) of every case that is not waiting; one skip that says so where there is no golden directory."""
    files = sorted((GOLDEN_DIR / "generation").glob("hypotheses*.json"))
    if not files:
        return [pytest.param(None, None, marks=pytest.mark.skip(reason=f"no golden files in {GOLDEN_DIR}/generation"))]
    named = [(file, name) for file in files for name in json.loads(file.read_text())["cases"]]
    return [pytest.param(file, name, id=f"{file.stem}-{name}") for file, name in named if not skipped(name)]


def vocabulary(size: int) -> Vocabulary:
    """The golden dictionary: its words are called by their ids."""
    return Vocabulary([f"t{i}" for i in range(size - 4)], [1] * (size - 4))


@cache
def inputs(hypotheses: Path):
    """The batch, the target vocabulary and the models by name that belong to a file of hypotheses."""
    spec = json.loads(hypotheses.read_text())
    tensors = load_file(hypotheses.with_name(spec["models_file"]))
    described = json.loads(hypotheses.with_name(spec["models_file"]).with_suffix(".json").read_text())
    source, target = (vocabulary(described[f"{side}_dict_size"]) for side in ("source", "target"))
    task = SimpleNamespace(source_vocabulary=source, target_vocabulary=target)
    models = {}
    for name in ("model1", "model2"):
        models[name] = transformer(described[name]["model_config"], task)
        weights = {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}
        models[name].load_state_dict({k: v for k, v in weights.items() if not k.endswith("version")})
    return spec["cases"], target, models, tensors["in/src_tokens"], tensors["in/src_lengths"]


def transformer(model_config: dict, task) -> Transformer:
    values = {"no_decoder_final_norm": False, "adaptive_softmax_factor": 4.0, **model_config}
    return Transformer(TransformerConfig(**{f.name: values[f.name] for f in fields(TransformerConfig)}), task).eval()


def options(case: dict, target: Vocabulary) -> dict:
    """The case's options in our names; one that is not known here is an error."""
    given = {NAMES.get(name, name): value for name, value in case["options"].items()}
    call = case.get("call", {})
    unknown = set(given) - SAME - set(NAMES.values()) | set(call) - {"prefix_tokens", "bos_token"}
    assert not unknown, f"options that no field of ours answers to: {unknown}"
    if "unnormalized" in given:
        given["unnormalized"] = not given["unnormalized"]
    if "eos_token" in given:
        given["eos_token"] = target.pieces[given["eos_token"]]
    if "bos_token" in call:
        given["bos_token"] = target.pieces[call["bos_token"]]
    return {"nbest": given["beam"], **given}


@pytest.mark.parametrize(("file", "name"), golden_cases())
def test_hypotheses_are_those_of_fairseq(file, name):
    cases, target, models, src_tokens, src_lengths = inputs(file)
    case = cases[name]
    assert set(case) <= KEYS
    alignment = "attention_argmax" in case
    cfg = config(padded_max_len=True, print_alignment=alignment, **options(case, target))
    prefix = case.get("call", {}).get("prefix_tokens")
    found = BeamSearch(cfg, target).generate(
        [models[model] for model in case["models"]],
        src_tokens,
        src_lengths,
        None if prefix is None else torch.tensor(prefix),
    )
    assert [[h.tokens.tolist() for h in row] for row in found] == [
        [h["tokens"] for h in row] for row in case["hypotheses"]
    ]
    for ours, theirs in zip(sum(found, []), sum(case["hypotheses"], [])):
        assert ours.score == pytest.approx(float(theirs["score"]), abs=1e-4)
        assert ours.positional_scores.tolist() == pytest.approx(theirs["positional_scores"], abs=1e-4)
    if alignment:
        assert [[h.attention.argmax(dim=1).tolist() for h in row] for row in found] == case["attention_argmax"]
        assert list(found[0][0].attention.T.shape) == case["attention_shape_of_first"]
