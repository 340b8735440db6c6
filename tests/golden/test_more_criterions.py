"""The real fairseq's losses and their gradients, for the criterions that ask more of a model than scores of tokens."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.criterions.adaptive_loss import AdaptiveLoss, AdaptiveLossConfig
from app.criterions.cross_entropy import CrossEntropy, CrossEntropyConfig
from app.criterions.ctc import CTC, CTCConfig
from app.criterions.label_smoothed_cross_entropy_with_alignment import (
    LabelSmoothedCrossEntropyWithAlignment,
    LabelSmoothedCrossEntropyWithAlignmentConfig,
)
from app.criterions.label_smoothed_cross_entropy_with_rdrop import (
    LabelSmoothedCrossEntropyWithRDrop,
    LabelSmoothedCrossEntropyWithRDropConfig,
)
from app.criterions.masked_lm import MaskedLM, MaskedLMConfig
from app.criterions.sentence_prediction import SentencePrediction, SentencePredictionConfig
from app.criterions.sentence_ranking import SentenceRanking, SentenceRankingConfig
from app.errors import ConfigError
from app.interfaces import Criterion, Loss, Model
from app.modules.adaptive_softmax import AdaptiveSoftmax
from tests.golden.cases import Case, claimed, task_of

HEAD = "sentence_classification_head"


class Rows(SimpleNamespace):
    """A batch: whatever a criterion asks for, and its number of rows."""

    def __len__(self) -> int:
        return int(self.target.size(0))


def rows(case: Case, **more: Any) -> Any:
    target = case.tensors["in/target"]
    return Rows(target=target, num_tokens=case.spec["logging_output"]["ntokens"], **more)


class Given(nn.Module):
    """A model whose features are scores already: those of the first pass, then those of the second."""

    output_projection = None

    def __init__(self, *scores: Tensor):
        super().__init__()
        self.scores = nn.ParameterList(nn.Parameter(each.clone()) for each in scores)
        self.passes = 0

    def forward(self, batch: Any) -> Tensor:
        self.passes += 1
        scores: Tensor = self.scores[(self.passes - 1) % len(self.scores)]
        return scores

    def project(self, features: Tensor) -> Tensor:
        return features

    def classify(self, batch: Any, head: str) -> Tensor:
        assert head == HEAD
        return self(batch)

    def frame_scores(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self(batch).transpose(0, 1), batch.input_lengths

    def features_and_attention(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.scores[0], self.scores[1]


def assert_loss(loss: Loss, case: Case, *but: str) -> None:
    """The sum, what it is divided by, and what is logged under fairseq's names."""
    assert loss.value.item() == pytest.approx(case.spec["loss_sum"], rel=1e-5)
    assert loss.sample_size == case.spec["sample_size"]
    names = {"n_correct": "ncorrect"} if "ncorrect" in case.spec["logging_output"] else {}
    for name, value in loss.logs.items():
        theirs = case.spec["logging_output"].get(names.get(name, name))
        if theirs is not None and name not in but:
            assert float(value) == pytest.approx(theirs[0] if isinstance(theirs, list) else theirs, rel=1e-5), name


def assert_gradient(parameter: Tensor, case: Case, name: str) -> None:
    torch.testing.assert_close(parameter.grad, case.tensors[f"out/grad_{name}"], rtol=1e-5, atol=1e-6)


class WithAdaptiveSoftmax(Given):
    def __init__(self, case: Case):
        super().__init__(case.tensors["in/features"])
        options = case.spec["options"]
        sizes = (options["vocab"], options["dim"], options["cutoff"])
        self.softmax = AdaptiveSoftmax(*sizes, dropout=0.0, factor=options["factor"])
        unread = ("version", "_float_tensor")
        self.softmax.load_state_dict({k: v for k, v in case.under("param").items() if not k.endswith(unread)})

    def project(self, features: Tensor) -> Tensor:
        scores: Tensor = self.softmax(features)
        return scores


@pytest.mark.parametrize("case", claimed("criterions", "adaptive_loss*"))
class TestAdaptiveLoss:
    def test_fairseqs_sum_with_its_fault(self, case: Any) -> None:
        model = WithAdaptiveSoftmax(case)
        cfg = AdaptiveLossConfig(case.spec["options"]["sentence_avg"], ignore_pad_in_tails=True)
        loss = AdaptiveLoss(cfg, task_of(case))(model, rows(case))
        loss.value.backward()
        assert_loss(loss, case)
        assert_gradient(model.scores[0], case, "logits")
        for name, weight in model.softmax.named_parameters():
            assert_gradient(weight, case, f"decoder.adaptive_softmax.{name}")

    def test_the_sum_of_all_words_is_that_of_cross_entropy(self, case: Any) -> None:
        model = WithAdaptiveSoftmax(case)
        loss = AdaptiveLoss(AdaptiveLossConfig(False, False), task_of(case))(model, rows(case))
        assert loss.value.item() == pytest.approx(case.spec["options"]["nll_sum_from_lprobs"], rel=1e-5)
        plain = CrossEntropy(CrossEntropyConfig(False, 0.0), task_of(case))(model, rows(case))
        torch.testing.assert_close(loss.value, plain.value)
        gradients = [torch.autograd.grad(each.value, list(model.parameters())) for each in (loss, plain)]
        torch.testing.assert_close(*gradients)

    def test_a_model_without_one_is_refused(self, case: Any) -> None:
        with pytest.raises(ConfigError, match="adaptive_softmax_cutoff"):
            AdaptiveLoss(AdaptiveLossConfig(False, False), task_of(case))(Given(torch.zeros(1)), rows(case))


def rdrop(case: Case) -> LabelSmoothedCrossEntropyWithRDrop:
    options = {"ignore_prefix_size": 0, **case.spec["options"]}
    return LabelSmoothedCrossEntropyWithRDrop(LabelSmoothedCrossEntropyWithRDropConfig(**options), task_of(case))


@pytest.mark.parametrize("case", claimed("criterions", "label_smoothed_cross_entropy_with_rdrop*"))
def test_rdrop(case: Any) -> None:
    model = Given(case.tensors["in/logits"], case.tensors["in/logits2"])
    loss = rdrop(case)(model, rows(case))
    loss.value.backward()
    assert_loss(loss, case, "nll_loss")
    passes = 2 if case.spec["options"]["rdrop_alpha"] else 1
    assert model.passes == passes
    assert float(loss.logs["nll_loss"]) * passes == pytest.approx(case.spec["logging_output"]["nll_loss"], rel=1e-5)
    assert_gradient(model.scores[0], case, "logits")
    if passes == 2:
        assert_gradient(model.scores[1], case, "logits2")


@pytest.mark.parametrize("case", claimed("criterions", "label_smoothed_cross_entropy_with_rdrop"))
def test_rdrop_validates_with_one_pass(case: Any) -> None:
    model = Given(case.tensors["in/logits"]).eval()
    loss = rdrop(case)(model, rows(case))
    assert model.passes == 1
    assert "rdrop_kl_loss" not in loss.logs


@pytest.mark.parametrize("case", claimed("criterions", "label_smoothed_cross_entropy_with_alignment"))
def test_alignment(case: Any) -> None:
    cfg = LabelSmoothedCrossEntropyWithAlignmentConfig(**case.spec["options"])
    given = {"alignments": case.tensors["in/alignments"], "align_weights": case.tensors["in/align_weights"]}
    criterion = LabelSmoothedCrossEntropyWithAlignment(cfg, task_of(case))
    model = Given(case.tensors["in/logits"], case.tensors["in/attn"])
    loss = criterion(model, rows(case, **given))
    loss.value.backward()
    assert_loss(loss, case)
    assert_gradient(model.scores[0], case, "logits")
    without = criterion(model, rows(case))
    assert without.value.item() == pytest.approx(case.spec["logging_output"]["loss"], rel=1e-5)
    assert "alignment_loss" not in without.logs


@pytest.mark.parametrize("case", claimed("criterions", "masked_lm"))
def test_masked_lm(case: Any) -> None:
    model = Given(case.tensors["in/logits"])
    loss = MaskedLM(MaskedLMConfig(), task_of(case))(model, rows(case))
    loss.value.backward()
    assert_loss(loss, case)
    assert_gradient(model.scores[0], case, "logits")


@pytest.mark.parametrize("case", claimed("criterions", "sentence_prediction*"))
def test_sentence_prediction(case: Any) -> None:
    model = Given(case.tensors["in/logits"])
    cfg = SentencePredictionConfig(HEAD, case.spec["options"]["regression_target"], report_f1_and_mcc=False)
    loss = SentencePrediction(cfg, task_of(case))(model, rows(case))
    loss.value.backward()
    assert_loss(loss, case)
    assert_gradient(model.scores[0], case, "logits")


@pytest.mark.parametrize("case", claimed("criterions", "sentence_ranking"))
def test_sentence_ranking(case: Any) -> None:
    scores = case.tensors["in/scores"]
    model = Given(scores.view(-1, 1))
    loss = SentenceRanking(SentenceRankingConfig(HEAD), task_of(case))(model, rows(case))
    loss.value.backward()
    assert_loss(loss, case)
    ours = model.scores[0].grad.view_as(scores)
    torch.testing.assert_close(ours, case.tensors["out/grad_logits"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", claimed("criterions", "ctc*"))
def test_ctc(case: Any) -> None:
    options, model = case.spec["options"], Given(case.tensors["in/logits"])
    ours = CTC(CTCConfig(options["zero_infinity"], options["sentence_avg"]), task_of(case))
    assert ours.vocabulary.bos == options["blank"]
    loss = ours(model, rows(case, input_lengths=case.tensors["in/input_lengths"]))
    loss.value.backward()
    assert_loss(loss, case)
    assert_gradient(model.scores[0], case, "logits")


@pytest.mark.parametrize("make", [MaskedLM, CTC])
def test_nothing_to_predict_costs_nothing(make: Callable[..., Any]) -> None:
    task: Any = task_of(SimpleNamespace(spec={"target_dict": {"size": 9}}))  # type: ignore[arg-type]
    model = Given(torch.randn(2, 3, 9) if make is MaskedLM else torch.randn(3, 2, 9))
    batch = Rows(target=torch.ones(2, 3, dtype=torch.long), num_tokens=0, input_lengths=torch.tensor([3, 3]))
    loss = make(MaskedLMConfig() if make is MaskedLM else CTCConfig(False, False), task)(model, batch)
    loss.value.backward()
    assert loss.sample_size == 0
    assert torch.isfinite(model.scores[0].grad).all()


@pytest.mark.parametrize("kind", [CTC, SentencePrediction, SentenceRanking, LabelSmoothedCrossEntropyWithAlignment])
def test_what_not_every_model_has_is_declared(kind: type[Criterion]) -> None:
    assert kind.needs is not None
    assert hasattr(Given, kind.needs)
    assert not hasattr(Model, kind.needs)
