"""The real fairseq's losses and their gradients, from the same scores."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from app.criterions.cross_entropy import CrossEntropy, CrossEntropyConfig
from app.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropy, LabelSmoothedCrossEntropyConfig
from app.interfaces import Criterion
from tests.golden.cases import Case, claimed, task_of


class GivenScores(nn.Module):
    """A model whose features are scores already."""

    output_projection = None

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, batch: Any) -> torch.Tensor:
        return self.logits

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return features


def criterion(case: Case) -> Criterion:
    options = {"sentence_avg": False, "report_accuracy": False, "label_smoothing": 0.0, "ignore_prefix_size": 0}
    options["z_loss"] = 0.0  # not in fairseq
    options |= case.spec["options"]
    if case.name.startswith("label_smoothed"):
        return LabelSmoothedCrossEntropy(LabelSmoothedCrossEntropyConfig(**options), task_of(case))
    return CrossEntropy(CrossEntropyConfig(options["sentence_avg"], 0.0), task_of(case))


class Rows(SimpleNamespace):
    def __len__(self) -> int:
        return int(self.target.size(0))


@pytest.mark.parametrize("case", claimed("criterions", "cross_entropy*", "label_smoothed_cross_entropy*", "!*_with_*"))
def test_loss_and_gradient(case: Any) -> None:
    target = case.tensors["in/target"]
    model = GivenScores(case.tensors["in/logits"].clone())
    loss = criterion(case)(model, Rows(target=target, num_tokens=int(target.ne(1).sum())))
    loss.value.backward()

    assert loss.value.item() == pytest.approx(case.spec["loss_sum"], rel=1e-5)
    assert loss.sample_size == case.spec["sample_size"]
    torch.testing.assert_close(model.logits.grad, case.tensors["out/grad_logits"], rtol=1e-5, atol=1e-6)
    for name, value in case.spec["logging_output"].items():
        if name != "sample_size" and (name in loss.logs or name in ("loss", "nll_loss", "ntokens", "nsentences")):
            assert float(loss.logs[name]) == pytest.approx(value, rel=1e-5), name
    if "n_correct" in case.spec["logging_output"]:
        assert loss.logs["total"] == case.spec["logging_output"]["total"]
    shown = case.spec["reduced_metrics"]["loss"]
    assert loss.value.item() / loss.sample_size / math.log(2) == pytest.approx(shown, abs=2e-3)
