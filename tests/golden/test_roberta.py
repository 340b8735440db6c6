"""The real fairseq's RoBERTa: its weights give its scores, classes, loss and gradients; its masks are ours."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.criterions.masked_lm import MaskedLM, MaskedLMConfig
from app.data.batch import Batch
from app.data.masking import Masking
from app.data.vocabulary import Vocabulary
from app.models.roberta import Roberta, RobertaConfig
from tests.golden.cases import Case, claimed, vocabulary
from tests.golden.zoo import PAD, RELATIVE, close, load, options

HEADS = "param/classification_heads."


def task_of(case: Case) -> Any:
    """What RoBERTa and its criterion ask of a task: one vocabulary, and the heads whose weights are there."""
    heads = {name.split(".")[1] for name in case.tensors if name.startswith(HEADS)}
    words = vocabulary(case.spec["dict"]["size"])
    sizes = dict.fromkeys(heads, case.spec["classes"])
    return SimpleNamespace(source_vocabulary=words, target_vocabulary=words, classification_heads=sizes)


def roberta(case: Case) -> Roberta:
    cfg = options(RobertaConfig, case, max_positions=case.spec["model_config"]["tokens_per_sample"])
    model: Roberta = load(Roberta(cfg, task_of(case)), case)
    return model


def batch_of(tokens: Tensor, target: Tensor) -> Batch:
    lengths = tokens.ne(PAD).sum(dim=1)
    return Batch(torch.arange(len(tokens)), tokens, lengths, tokens, target, int(lengths.sum()))


def masked(case: Case) -> Batch:
    """A batch that the masked tokens of are to be guessed."""
    shown, target = case.tensors["in/src_tokens"], case.tensors["in/target"]
    return batch_of(shown, target.masked_fill(~case.tensors["in/masked_tokens"].bool(), PAD))


@pytest.mark.parametrize("case", claimed("models", "roberta*"))
class TestRoberta:
    def test_scores_and_classes(self, case: Any) -> None:
        model, batch, out = roberta(case), masked(case), case.under("out")
        real = batch.src_tokens.ne(PAD)
        features = model(batch)
        close(features[real], out["features"][real])
        close(model.project(features)[real], out["logits"][real])
        close(model.project(features[batch.target.ne(PAD)]), out["masked_logits"])
        for head in model.classification_heads:
            close(model.classify(batch, head), out["classification_logits"])

    def test_loss(self, case: Any) -> None:
        loss = MaskedLM(MaskedLMConfig(), task_of(case))(roberta(case), masked(case))
        assert loss.value.item() == pytest.approx(case.spec["masked_lm_loss_sum"], rel=1e-5)
        assert loss.sample_size == case.spec["masked_count"]

    def test_gradients(self, case: Any) -> None:
        model = roberta(case)
        (model.project(model(masked(case))) * case.tensors["grad/R"]).sum().backward()
        ours = {name: p.grad for name, p in model.named_parameters(remove_duplicate=False) if p.grad is not None}
        for name, norm in case.spec["grad_norms"].items():
            if norm > 1e-5:
                assert float(ours[name].norm()) == pytest.approx(norm, rel=RELATIVE), name
        for name in case.spec["grads_in_full"]:
            close(ours[name], case.tensors[f"grad/{name}"])

    def test_tied_parameters(self, case: Any) -> None:
        parameters = roberta(case).state_dict(keep_vars=True)
        for first, *others in case.spec["tied_parameters"]:
            assert all(parameters[name] is parameters[first] for name in others)
        assert sum(p.numel() for p in {id(p): p for p in parameters.values()}.values()) == case.spec["num_parameters"]

    def test_padding_changes_nothing(self, case: Any) -> None:
        model, batch = roberta(case), masked(case)
        features = model(batch)
        for row, length in enumerate(batch.src_lengths.tolist()):
            alone = batch_of(batch.src_tokens[row : row + 1, :length], batch.target[row : row + 1, :length])
            close(model(alone)[0], features[row, :length])


@pytest.mark.parametrize("case", claimed("data", "mask_tokens"))
def test_masks(case: Any) -> None:
    spec = case.spec
    words = Vocabulary([f"w{i}" for i in range(4, spec["vocab"])], spec["counts"][4:])
    for result in spec["results"]:
        given = result["options"]
        masking = Masking(
            seed=spec["seed"],
            mask_idx=spec["mask_idx"],
            mask_prob=given["mask_prob"],
            leave_unmasked_prob=given["leave_unmasked_prob"],
            random_token_prob=given["random_token_prob"],
            mask_multiple_length=given.get("mask_multiple_length", 1),
            mask_stdev=given.get("mask_stdev", 0.0),
            frequencies=Masking.replacement_frequencies(words, given.get("freq_weighted_replacement", False)),
            word_begins=np.array(spec["word_begin_mask"], dtype=bool) if result["whole_words"] else None,
        )
        for index, sentence in enumerate(spec["sentences"]):
            shown, target = masking.apply(np.array(sentence), result["epoch"], index)
            assert shown.tolist() == result["source"][index]
            assert target.tolist() == result["target"][index]
