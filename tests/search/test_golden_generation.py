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
from torch import Tensor

from app.data.vocabulary import Vocabulary
from app.models.transformer import Transformer, TransformerConfig
from app.models.transformer_lm import TransformerLM
from app.search.diverse_beam import Groups
from app.search.forced import score_reference
from app.search.sampling import likely
from tests.golden.cases import GOLDEN_DIR, UNNAMED, Case, claimed
from tests.golden.test_transformer_lm import UNREAD
from tests.golden.test_transformer_lm import config as lm_config
from tests.search.toy import strategy

OTHERWISE = {"_fairseq_cpu_as_is": "records a fault of fairseq: on a CPU its n-gram rule does nothing"}
NAMES = {  # SequenceGenerator's argument: ours
    "beam_size": "beam",
    "len_penalty": "lenpen",
    "unk_penalty": "unkpen",
    "normalize_scores": "unnormalized",
    "eos": "eos_token",
    "lm_weight": "lm_weight",
}
STRATEGIES = {  # fairseq's class: our option, and our names of its arguments
    "DiverseBeamSearch": (
        "diverse_beam",
        {"num_groups": "diverse_beam_groups", "diversity_strength": "diverse_beam_strength"},
    ),
    "DiverseSiblingsSearch": ("diverse_siblings", {}),
    "LengthConstrainedBeamSearch": ("length_constrained", {"max_len_a": "free_len_a", "max_len_b": "free_len_b"}),
    "LexicallyConstrainedBeamSearch": ("lexically_constrained", {"representation": "constraints"}),
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
OTHER_KINDS = ("lexical_constraints", "sampling_", "scorer_")  # cases that hold something else than found hypotheses
KEYS = {"models", "options", "search", "call", "hypotheses", "note", "attention_argmax", "attention_shape_of_first"}


def skipped(name: str) -> bool:
    return name.endswith(tuple(OTHERWISE))


def golden_cases(kind: str = ""):
    """(file, case name) of every case of a kind that is not waiting; one skip where there is no golden directory."""
    found = [parameter.values[0] for parameter in claimed("generation", "hypotheses*")]
    if found == [None]:
        return [pytest.param(None, None, marks=pytest.mark.skip(reason=f"no golden files in {GOLDEN_DIR}/generation"))]
    named = [(case.path, name) for case in found for name in case.spec["cases"] if not skipped(name)]
    return [
        pytest.param(file, name, id=f"{file.stem}-{name}")
        for file, name in named
        if (name.startswith(kind) if kind else not name.startswith(OTHER_KINDS))
    ]


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
    models["lm"] = language_model(Case(hypotheses.with_name(spec["models_file"]).with_suffix(".json")), task)
    return spec["cases"], target, models, {k.removeprefix("in/"): v for k, v in tensors.items() if k.startswith("in/")}


def transformer(model_config: dict, task) -> Transformer:
    values = UNNAMED | model_config
    return Transformer(TransformerConfig(**{f.name: values[f.name] for f in fields(TransformerConfig)}), task).eval()


def language_model(case: Case, task) -> TransformerLM:
    model_config = lm_config(SimpleNamespace(spec=case.spec["lm"], under=lambda _: case.under("lm")))
    model = TransformerLM(model_config, task)
    model.load_state_dict({k: v for k, v in case.under("lm").items() if not k.endswith(UNREAD)})
    return model.eval()


def options(case: dict, target: Vocabulary) -> dict:
    """The case's options in our names; one that is not known here is an error."""
    given = {NAMES.get(name, name): value for name, value in case["options"].items()}
    call = case.get("call", {})
    given.pop("lm_model", None)
    unknown = set(given) - SAME - set(NAMES.values()) | set(call) - {
        "prefix_tokens",
        "bos_token",
        "constraints",
        "src_tokens",
    }
    assert not unknown, f"options that no field of ours answers to: {unknown}"
    if "unnormalized" in given:
        given["unnormalized"] = not given["unnormalized"]
    if "eos_token" in given:
        given["eos_token"] = target.pieces[given["eos_token"]]
    if "bos_token" in call:
        given["bos_token"] = target.pieces[call["bos_token"]]
    return {"nbest": given["beam"], **given}


def strategy_of(case: dict) -> tuple[str, dict]:
    """Our option of `search`, and the values of the fields that are its own."""
    given = dict(case.get("search") or {})
    name, names = STRATEGIES[given.pop("name")] if given else ("beam", {})
    return name, {names.get(field, field): value for field, value in given.items()}


def unpacked(row: list[int]) -> list[list[int]]:
    """One sentence's constraints in fairseq's form: their number, then each with a 0 after it."""
    constraints: list[list[int]] = [[]]
    for token in row[1:]:
        if token:
            constraints[-1].append(token)
        else:
            constraints.append([])
    return constraints[: row[0]]


@pytest.fixture
def first_likeness_by_id(monkeypatch):
    """Puts fairseq's fault back: what diverse groups had in common at the first step is that of another sentence."""

    def use(ids: Tensor) -> None:
        def candidates(rule, log_probs, beams):
            found = original(rule, log_probs, beams)
            if not beams.step:
                rule.likeness = rule.likeness[ids]
            return found

        original = Groups.candidates
        monkeypatch.setattr(Groups, "candidates", candidates)

    return use


@pytest.mark.parametrize(("file", "name"), golden_cases())
def test_hypotheses_are_those_of_fairseq(file, name, first_likeness_by_id):
    cases, target, models, given = inputs(file)
    first_likeness_by_id(given["id"])
    case = cases[name]
    assert set(case) <= KEYS
    alignment = "attention_argmax" in case
    option, own = strategy_of(case)
    search = strategy(option, target, padded_max_len=True, print_alignment=alignment, **options(case, target), **own)
    call = case.get("call", {})
    prefix = torch.tensor(call["prefix_tokens"]) if "prefix_tokens" in call else None
    more = {"constraints": [unpacked(row) for row in call["constraints"]]} if "constraints" in call else {}
    search.lm = models.get(case["options"].get("lm_model"))
    sources = given["src_tokens"], given["src_lengths"]
    if "src_tokens" in call:
        tokens = torch.tensor(call["src_tokens"])
        sources = tokens, tokens.ne(target.pad).sum(dim=1)
    found = search.generate([models[model] for model in case["models"]], *sources, prefix, **more)
    assert [[h.tokens.tolist() for h in row] for row in found] == [
        [h["tokens"] for h in row] for row in case["hypotheses"]
    ]
    for ours, theirs in zip(sum(found, []), sum(case["hypotheses"], [])):
        assert ours.score == pytest.approx(float(theirs["score"]), abs=1e-4)
        assert ours.positional_scores.tolist() == pytest.approx(theirs["positional_scores"], abs=1e-4)
    if alignment:
        assert [[h.attention.argmax(dim=1).tolist() for h in row] for row in found] == case["attention_argmax"]
        assert list(found[0][0].attention.T.shape) == case["attention_shape_of_first"]


@pytest.mark.parametrize(("file", "name"), golden_cases("lexical_constraints"))
def test_constraints_are_packed_as_fairseq_packs_them(file, name):
    case = inputs(file)[0][name]
    assert [unpacked(row) for row in case["packed"]] == case["constraints"]


@pytest.mark.parametrize(("file", "name"), golden_cases("sampling_"))
def test_samples_are_drawn_from_fairseqs_distributions(file, name):
    cases, target, models, given = inputs(file)
    case = cases[name]
    (model,) = (models[model] for model in case["models"])
    encoder_out = model.encode(given["src_tokens"], given["src_lengths"])
    first = torch.full((len(given["src_tokens"]), 1), target.eos)
    log_probs = model.project(model.decode(first, encoder_out)[:, 0]).log_softmax(dim=-1)
    log_probs[:, [target.pad, target.eos]] = -torch.inf
    for key, left in (
        ("topk_probs_as_drawn_from", likely(log_probs, case["top_k"], 0.0, 0.0)),
        ("topp_trimmed_probs", likely(log_probs, 0, case["top_p"], 0.0)),
    ):
        expected = torch.zeros_like(left).scatter_(
            1, torch.tensor(case[f"{key[:4]}_indices"]), torch.tensor(case[key], dtype=left.dtype)
        )
        torch.testing.assert_close(left.exp(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("file", "name"), golden_cases("scorer_"))
def test_references_are_scored_as_by_fairseq(file, name):
    cases, target, models, given = inputs(file)
    case = cases[name]
    ensemble = [models[model] for model in case["models"]]
    sources = given["src_tokens"], given["src_lengths"]
    found = score_reference(ensemble, *sources, given["target"], target.eos, target.pad)
    for ours, (theirs,) in zip(found, case["hypotheses"], strict=True):
        assert ours.tokens.tolist() == theirs["tokens"]
        assert ours.score == pytest.approx(float(theirs["score"]), abs=1e-4)
        assert ours.positional_scores.tolist() == pytest.approx(theirs["positional_scores"], abs=1e-4)


@pytest.mark.parametrize("case", claimed("generation", "models_and_inputs*"))
def test_every_file_of_models_has_hypotheses(case):
    users = [parameter.values[0].spec["models_file"] for parameter in claimed("generation", "hypotheses*")]
    assert case.spec["tensors_file"] in users
