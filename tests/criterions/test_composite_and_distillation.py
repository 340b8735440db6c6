"""Criterions that are made of others, or learn from another run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from app.compatibility import between_sections
from app.criterions.composite_loss import CompositeLoss, CompositeLossConfig
from app.criterions.distillation import Distillation, DistillationConfig
from app.errors import ConfigError
from app.runtime.checkpoint import Checkpoint
from app.schema import typed
from tests.golden.cases import vocabulary
from tests.runs import configured, train

WORDS = vocabulary(9)
TASK: Any = SimpleNamespace(source_vocabulary=WORDS, target_vocabulary=WORDS)
TARGET = torch.tensor([[4, 5, 2], [6, 2, 1]])
PLAIN = {"_target_": "app.criterions.cross_entropy.CrossEntropy", "sentence_avg": False, "z_loss": 0.0}
SMOOTHED = {
    "_target_": "app.criterions.label_smoothed_cross_entropy.LabelSmoothedCrossEntropy",
    "label_smoothing": 0.2,
    "ignore_prefix_size": 0,
    "sentence_avg": True,
    "report_accuracy": False,
    "z_loss": 0.0,
}


class Rows(SimpleNamespace):
    num_tokens = 5

    def __len__(self) -> int:
        return 2


BATCH: Any = Rows(target=TARGET)


class GivenScores(nn.Module):
    """A model whose features are scores already."""

    output_projection = None

    def __init__(self, seed: int):
        super().__init__()
        self.scores = nn.Parameter(torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(seed)))

    def forward(self, batch: Any) -> torch.Tensor:
        return self.scores

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return features


def composite(**parts: Any) -> CompositeLoss:
    return CompositeLoss(typed(CompositeLossConfig, {"parts": parts}), TASK)


def test_a_composite_is_the_weighted_sum_of_means() -> None:
    model: Any = GivenScores(1)
    plain, smoothed = (composite(one={"weight": 1.0, "criterion": node})(model, BATCH) for node in (PLAIN, SMOOTHED))
    both = composite(words={"weight": 2.0, "criterion": PLAIN}, smooth={"weight": 0.5, "criterion": SMOOTHED})
    loss = both(model, BATCH)
    assert loss.sample_size == 5  # of the first part: tokens; the other counts the 2 sentences
    mean = 2.0 * plain.value / 5 + 0.5 * smoothed.value / 2
    assert loss.value.item() / 5 == pytest.approx(mean.item(), rel=1e-6)
    assert float(loss.logs["words_loss"]) == pytest.approx(plain.value.item(), rel=1e-6)
    assert float(loss.logs["nll_loss"]) == pytest.approx(plain.value.item(), rel=1e-6)
    assert float(loss.logs["loss"]) == pytest.approx(loss.value.item())


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({}, "parts={}: name at least one, such as parts.words, with weight and criterion"),
        ({"a": {"weight": 0.0, "criterion": PLAIN}}, "parts.a.weight=0.0: must be"),
        ({"a": {"weight": 1.0, "criterion": {**PLAIN, "x": 1}}}, "parts.a.criterion.x: no such key"),
        ({"a": {"weight": 1.0, "criterion": {"_target_": "os.system"}}}, "parts.a.criterion._target_=os.system"),
    ],
)
def test_bad_parts_are_named(parts: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        typed(CompositeLossConfig, {"parts": parts}, "criterion")
    assert [line for line in caught.value.faults if line.startswith(f"criterion.{fault}")]


def test_what_a_part_needs_is_asked_of_the_model(tmp_path: Path) -> None:
    ctc = {"_target_": "app.criterions.ctc.CTC", "zero_infinity": False, "sentence_avg": False}
    cfg = typed(CompositeLossConfig, {"parts": {"frames": {"weight": 1.0, "criterion": ctc}}})
    plugins = {
        "criterion": SimpleNamespace(func=CompositeLoss),
        "model": SimpleNamespace(func=GivenScores),
        "task": None,
    }
    GivenScores.refines = False  # type: ignore[attr-defined]
    faults = list(between_sections({"criterion": cfg}, plugins))
    assert [fault for fault in faults if "asks its model for `frame_scores`" in fault]


def distillation(alpha: float, temperature: float, label_smoothing: float = 0.0) -> Distillation:
    return Distillation(DistillationConfig("unread", alpha, temperature, label_smoothing, False), TASK)


def test_the_loss_is_that_of_its_formula() -> None:
    """Numbers from a loop over words in double precision, apart from the program's own functions."""
    student: Any = GivenScores(1)
    teacher: Any = GivenScores(2)
    criterion = distillation(0.3, 2.0)
    criterion.teach(teacher)
    loss = criterion(student, BATCH)
    expected = 0.0
    for row, position in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        own, other = (m.scores.detach()[row, position].double() for m in (student, teacher))
        expected -= 0.7 * float(torch.softmax(own, 0)[TARGET[row, position]].log())
        p, q = torch.softmax(other / 2, 0), torch.softmax(own / 2, 0)
        expected += 0.3 * 4 * sum(float(p[word] * (p[word] / q[word]).log()) for word in range(9))
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    loss.value.backward()
    assert student.scores.grad is not None
    assert teacher.scores.grad is None
    assert criterion.state_dict() == {}
    assert list(criterion.parameters()) == []


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it() -> None:
    criterion = distillation(1.0, 1.5)
    criterion.teach(GivenScores(3))  # type: ignore[arg-type]
    student: Any = GivenScores(3)
    criterion(student, BATCH).value.backward()
    torch.testing.assert_close(student.scores.grad, torch.zeros(2, 3, 9), atol=1e-6, rtol=0)


def test_validation_does_not_ask_the_teacher() -> None:
    model: Any = GivenScores(1).eval()
    plain = composite(one={"weight": 1.0, "criterion": PLAIN})(model, BATCH)
    assert distillation(0.5, 1.0)(model, BATCH).value.item() == pytest.approx(plain.value.item(), rel=1e-6)


def test_a_student_is_trained_by_a_run_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    teacher = train(tmp_path, "trainer.max_update=6", "trainer.validate_interval=0", "criterion=cross_entropy")
    kept = teacher.rename(tmp_path / "teacher")
    taught = ["criterion=distillation", f"criterion.teacher={kept}", "model.encoder_embed_dim=16"]
    student = train(
        tmp_path, *taught, "trainer.max_update=4", "trainer.validate_interval_updates=2", "trainer.log_interval=2"
    )
    lines = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    assert all(line["distillation_loss"] > 0 for line in lines if line["kind"] == "train")
    (checkpoint,) = (student / "checkpoints").glob("update_00000004")
    assert not [name for name in Checkpoint.open(checkpoint).tensors("state.safetensors") if "criterion" in name]


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    teacher = train(tmp_path, "trainer.max_update=1", "trainer.validate_interval=0").rename(tmp_path / "teacher")
    taught = ["criterion=distillation", f"criterion.teacher={teacher}", "trainer.max_update=1"]
    with pytest.raises(ConfigError, match="has another source vocabulary"):
        train(tmp_path, *taught, "task.nwords=10")


def test_a_teacher_that_is_not_there_is_told_before_anything_starts() -> None:
    with pytest.raises(ConfigError) as caught:
        configured(["criterion=distillation", "criterion.teacher=/nowhere", "task.data=/nowhere"])
    assert "criterion.teacher=/nowhere: no such run or checkpoint directory" in caught.value.faults
