"""fairseq's non-autoregressive Transformers: what they predict, what they lose, and what they decode."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.criterions.nat_loss import NatLoss, NatLossConfig
from app.data.batch import Batch
from app.interfaces import RefiningModel
from app.models.cmlm_transformer import CMLMTransformer, CMLMTransformerConfig
from app.models.drafts import LengthTransformerConfig
from app.models.levenshtein_transformer import LevenshteinTransformer, LevenshteinTransformerConfig
from app.models.nonautoregressive_transformer import NonautoregressiveTransformer
from app.search.iterative_refinement import IterativeRefinement, IterativeRefinementConfig
from tests.golden import zoo
from tests.golden.cases import Case, claimed, vocabulary

MODELS: dict[str, tuple[type[RefiningModel], type]] = {
    "cmlm_transformer": (CMLMTransformer, CMLMTransformerConfig),
    "levenshtein_transformer": (LevenshteinTransformer, LevenshteinTransformerConfig),
    "nonautoregressive_transformer": (NonautoregressiveTransformer, LengthTransformerConfig),
}
LONGEST = 255  # positions without parameters know no end in fairseq, whatever its options say


def refining(case: Case) -> Any:
    made, schema = MODELS[case.spec["arch"]]
    given = case.spec["model_config"]
    ends = {
        f"max_{name}_positions": given[f"max_{name}_positions"] - 1 if given[f"{side}_learned_pos"] else LONGEST
        for name, side in (("source", "encoder"), ("target", "decoder"))
    }
    if "early_exit" in given:
        ends["early_exit"] = [int(word) for word in given["early_exit"].split(",")]
    words = vocabulary(case.spec["dict"]["size"])
    task = SimpleNamespace(source_vocabulary=words, target_vocabulary=words)
    return zoo.load(made(zoo.options(schema, case, **ends), task), case)


def batch(case: Case) -> Batch:
    given = case.under("in")
    target = given["target"]
    return Batch(
        ids=torch.arange(len(target)),
        src_tokens=given["src_tokens"],
        src_lengths=given["src_lengths"],
        prev_output_tokens=given["prev_target"],
        target=target,
        num_tokens=int(target.ne(zoo.PAD).sum()),
    )


@pytest.mark.parametrize("case", claimed("models", "cmlm_*", "levenshtein_*", "nonautoregressive_*"))
class TestRefiningModels:
    def test_what_is_predicted(self, case: Any) -> None:
        model, out = refining(case), case.under("out")
        given = batch(case)
        predictions = model.predictions(given)
        assert set(predictions) == set(case.spec["parts"])
        zoo.close(model.encode(given.src_tokens, given.src_lengths).states.transpose(0, 1), out["encoder_out"])
        for name, prediction in predictions.items():
            scores, target = out[f"{name}/out"], out[f"{name}/tgt"]
            counts = out.get(f"{name}/mask", torch.ones(len(target), dtype=torch.bool))
            zoo.close(prediction.features @ prediction.weight.t(), scores[counts])
            assert prediction.target.tolist() == target[counts].tolist(), name
            assert prediction.factor == case.spec["parts"][name].get("factor", 1.0)

    def test_loss_and_gradients(self, case: Any) -> None:
        model, logged = refining(case), case.spec["logging_output"]
        criterion = NatLoss(NatLossConfig(case.spec["model_config"]["label_smoothing"]), SimpleNamespace())
        loss = criterion(model, batch(case))
        assert loss.sample_size == logged["ntokens"]
        (loss.value / loss.sample_size).backward()
        assert loss.value.item() / loss.sample_size == pytest.approx(case.spec["loss"], rel=1e-5)
        for name, value in logged.items():
            if name.endswith("loss"):
                ours = float(loss.logs[name.replace("-", "_")]) / loss.sample_size
                assert ours == pytest.approx(value, rel=1e-5), name
        ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for name, norm in case.spec["grad_norms"].items():
            if norm > 1e-5:
                assert float(ours[name].norm()) == pytest.approx(norm, rel=1e-4), name

    def test_iterative_decoding(self, case: Any) -> None:
        expected = case.spec["iterative_decoding"]
        cfg = IterativeRefinementConfig(
            iter_decode_max_iter=expected["max_iter"],
            iter_decode_eos_penalty=0.0,
            iter_decode_force_max_iter=not expected["adaptive"],
            iter_decode_with_beam=1,
            iter_decode_with_external_reranker=False,
            max_ratio=2.0,
            retain_iter_history=False,
        )
        search = IterativeRefinement(cfg, vocabulary(case.spec["dict"]["size"]))
        given, model = batch(case), refining(case)
        with torch.inference_mode():
            found = search.refined(model, model.encode(given.src_tokens, given.src_lengths))
        for ours, (theirs,) in zip(found, expected["hypotheses"], strict=True):
            assert ours.tokens.tolist() == theirs["tokens"]
            assert float(ours.scores.mean()) == pytest.approx(theirs["score"], rel=1e-4)
            assert ours.steps == theirs["steps"]
