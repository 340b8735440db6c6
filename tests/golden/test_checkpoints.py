"""Real checkpoints of fairseq's become runs with its logits, which generate, train and are measured like any other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.assembly import restore
from app.hub import load
from app.interfaces import Model
from app.runtime.checkpoint import find
from tests.fairseq.imports import run_import, write_dictionary
from tests.golden.cases import GOLDEN_DIR, Case, claimed

RELATIVE = 1e-4


def whole(case: Case) -> dict[str, Any]:
    """The case's JSON, or that of the case whose weights it has in an older layout."""
    path = GOLDEN_DIR / "checkpoints" / f"{case.spec.get('same_logits_as', case.name)}.json"
    spec: dict[str, Any] = json.loads(path.read_text())
    return spec


def data_bin(case: Case, directory: Path) -> Path:
    """The dictionaries as fairseq wrote them: without what its task adds."""
    words = whole(case)["dictionaries"]
    source, target = (
        [word for word in words[f"{side}_dictionary"] if word != "<mask>"] for side in ("source", "target")
    )
    is_pair = "in/prev_output_tokens" in tensors(case)
    for name, pieces in (("dict.src.txt", source), ("dict.tgt.txt", target)) if is_pair else (("dict.txt", source),):
        write_dictionary(directory / name, pieces)
    return directory


def tensors(case: Case) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN_DIR / "checkpoints" / whole(case)["tensors_file"])


def logits(model: Model, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Our scores, and where no padding stands."""
    source = given["in/src_tokens"]
    if "in/prev_output_tokens" in given:
        tokens = given["in/prev_output_tokens"]
        features = model.decode(tokens, model.encode(source, given["in/src_lengths"]))
    elif getattr(model, "generates", True):
        tokens, features = source, model.decode(source)
    else:
        tokens, features = source, model.encode(source, source.ne(1).sum(1)).states
    has_logits = model.output_projection is not None or given["out/logits"].shape[-1] == given["out/lprobs"].shape[-1]
    return (model.project(features) if has_logits else features), tokens.ne(1)


@pytest.mark.parametrize("case", claimed("checkpoints", "*"))
class TestImport:
    def test_logits(self, case: Any, tmp_path: Path) -> None:
        run_import(case.path.with_name(case.spec["file"]), data_bin(case, tmp_path / "bin"), tmp_path / "run")
        restored, given = restore(tmp_path / "run"), tensors(case)
        ours, real = logits(restored.model, given)
        torch.testing.assert_close(ours[real], given["out/logits"][real], rtol=RELATIVE, atol=1e-5)
        state = find(tmp_path / "run", "loss", "min").state()
        update = whole(case)["structure"]["optimizer_history"][-1]["num_updates"]
        assert state["num_updates"] == update
        assert len(state["optimizer"]["optimizer"]["state"]) > 10

    def test_generation(self, case: Any, tmp_path: Path) -> None:
        run_import(case.path.with_name(case.spec["file"]), data_bin(case, tmp_path / "bin"), tmp_path / "run")
        model = load(tmp_path / "run", device="cpu")
        if not getattr(model.models[0], "generates", True):
            return
        given = tensors(case)
        words = model.task.source_vocabulary.pieces
        lines = [" ".join(words[i] for i in row if i > 3) for row in given["in/src_tokens"].tolist()]
        for hypotheses, line in zip(model.hypotheses(lines, beam=3, nbest=2, max_len_b=8), lines, strict=True):
            assert len(hypotheses) == 2
            (forced,) = model.score([line], [hypotheses[0].text]) if "in/prev_output_tokens" in given else [None]
            if forced is not None and "</s>" not in hypotheses[0].pieces and len(hypotheses[0].pieces) < 8:
                assert forced.score == pytest.approx(hypotheses[0].score, abs=1e-4)
