"""Which updates are taken, and what a batch that does not fit into memory becomes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.errors import OutOfMemory
from app.runtime import faults
from app.runtime.checkpoint import Checkpoint
from app.runtime.gradients import GradientBuckets
from app.runtime.numerics import HISTORY, Numerics, Verdict
from app.runtime.out_of_memory import HalvingRetry, is_out_of_memory, rehearse
from app.trainer import Trainer
from tests.runs import train


def judged(numerics: Numerics, *losses: float) -> list[Verdict]:
    return [numerics.judge(n, loss, 1.0, lambda n=n: [n]) for n, loss in enumerate(losses)]


def wave(count: int) -> list[float]:
    """Mean 2, standard deviation 0.1."""
    return [2 + 0.1 * (-1) ** n for n in range(count)]


class TestNumerics:
    @pytest.mark.fault("F14")
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_what_is_not_finite_is_skipped_and_counted(self, bad: float) -> None:
        numerics = Numerics("log", 3)
        assert judged(numerics, 1.0, bad, bad) == [Verdict.TAKE, Verdict.SKIP, Verdict.SKIP]
        assert not numerics.is_hopeless
        assert numerics.judge(3, 1.0, bad, lambda: [7]) is Verdict.SKIP
        assert numerics.is_hopeless
        assert list(numerics.skipped) == [[1], [2], [7]]
        assert numerics.judge(3, 1.0, 1.0, list) is Verdict.TAKE
        assert (numerics.num_skipped, list(numerics.skipped)) == (0, [])

    @pytest.mark.fault("F15")
    @pytest.mark.parametrize(
        ("policy", "verdict"),
        [("log", Verdict.TAKE), ("skip", Verdict.SKIP), ("rollback", Verdict.ROLL_BACK), ("off", Verdict.TAKE)],
    )
    def test_a_leap_is_more_than_six_sigmas(self, policy: str, verdict: Verdict, caplog: Any) -> None:
        numerics = Numerics(policy, 3)
        judged(numerics, *wave(HISTORY))
        assert judged(numerics, 2.59) == [Verdict.TAKE]
        judged(numerics, *wave(HISTORY))
        assert judged(numerics, 2.61) == [verdict]
        assert ("the loss leaps to 2.61" in caplog.text) == (policy != "off")

    def test_there_must_be_enough_to_compare_with(self) -> None:
        numerics = Numerics("skip", 3)
        assert judged(numerics, *wave(HISTORY // 2 - 1), 100.0)[-1] is Verdict.TAKE

    def test_its_state_is_what_decides(self) -> None:
        numerics, resumed = Numerics("skip", 3), Numerics("skip", 3)
        judged(numerics, *wave(HISTORY))
        resumed.load_state_dict(numerics.state_dict())
        assert judged(resumed, 2.61) == [Verdict.SKIP]


class Squares:
    """A step whose gradient is the sum of a batch's numbers, and which fails at the second weight when told to."""

    def __init__(self) -> None:
        self.model = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(2)])
        self.fails: list[int] = []  # lengths of batches that do not fit

    def __call__(self, batch: list[int]) -> float:
        first, second = self.model
        (first * sum(batch)).backward()  # what is complete when memory ends
        if len(batch) in self.fails:
            raise torch.OutOfMemoryError("none left")
        (second * sum(batch)).backward()
        return float(sum(batch))

    @property
    def grads(self) -> list[float]:
        return [float(p.grad) if p.grad is not None else 0.0 for p in self.model]


def halves(batch: list[int]) -> list[list[int]]:
    return [batch[: len(batch) // 2], batch[len(batch) // 2 :]]


class TestOutOfMemory:
    @pytest.mark.fault("F16")
    def test_halves_are_the_whole(self) -> None:
        step = Squares()
        retry = HalvingRetry(list(step.model), GradientBuckets())
        assert retry.run(step, [1, 2, 3], halves) == [6.0]
        step.fails = [4]
        assert retry.run(step, [1, 2, 3, 4], halves) == [3.0, 7.0]
        assert step.grads == [16.0, 16.0]

    def test_a_half_that_does_not_fit_ends_the_run(self) -> None:
        step = Squares()
        step.fails = [4, 2]
        with pytest.raises(OutOfMemory, match=r"a half of what did not fit.*lower batching.max_tokens"):
            HalvingRetry(list(step.model), GradientBuckets()).run(step, [1, 2, 3, 4], halves)

    def test_other_errors_are_not_ours(self) -> None:
        def broken(batch: list[int]) -> None:
            raise RuntimeError("shapes do not fit")

        with pytest.raises(RuntimeError, match="shapes"):
            HalvingRetry([], GradientBuckets()).run(broken, [1, 2], halves)

    def test_what_the_cpu_says(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            torch.empty(2**60)
        assert is_out_of_memory(caught.value)

    def test_a_rehearsal_leaves_no_trace(self) -> None:
        norm = nn.BatchNorm1d(2)
        before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
        rehearse(lambda batch: norm(batch).sum().backward(), torch.randn(4, 2), norm, norm.zero_grad)
        assert all(torch.equal(before[name], tensor) for name, tensor in norm.state_dict().items())
        assert norm.weight.grad is None

    def test_a_rehearsal_that_fails_says_what_to_do(self) -> None:
        step = Squares()
        step.fails = [3]
        with pytest.raises(OutOfMemory, match="before the first update: a batch of 3 sentences.*max_tokens"):
            rehearse(step, [1, 2, 3], step.model, step.model.zero_grad)


@pytest.mark.fault("F16")
def test_the_longest_batch_is_tried_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    forward_backward = Trainer.forward_backward

    def seen(trainer: Trainer, batch: Any) -> Any:
        sizes.append(batch.src_tokens.numel() + batch.target.numel())
        return forward_backward(trainer, batch)

    monkeypatch.setattr(Trainer, "forward_backward", seen)
    train(tmp_path, "batching.max_tokens=200", "trainer.max_epoch=1")
    assert sizes[0] == max(sizes[1:])


@pytest.fixture
def bad_numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A loss and a gradient that are not finite, an update each."""
    monkeypatch.setenv("FAULT", "nan:loss@3,inf:grad@5")
    faults.asked.cache_clear()
    yield
    faults.asked.cache_clear()


@pytest.mark.fault("F14")
@pytest.mark.usefixtures("bad_numbers")
def test_a_run_goes_on_past_updates_that_are_not_finite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir = train(tmp_path, "batching.max_tokens=200", "trainer.max_update=8", "trainer.validate_interval=0")
    assert "update 3: loss not finite, skipped" in caplog.text
    assert "update 5: gradients not finite, skipped" in caplog.text
    assert caplog.text.count("not finite") == 2
    weights = Checkpoint.open(run_dir / "checkpoints" / "update_00000008").tensors("model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.fault("F15")
def test_a_run_goes_back_to_its_checkpoint_when_the_loss_leaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, optimizer and number of updates are the checkpoint's, the data go on."""
    verdicts = iter([Verdict.TAKE] * 6 + [Verdict.ROLL_BACK] + [Verdict.TAKE] * 100)
    monkeypatch.setattr(Numerics, "judge", lambda *_: next(verdicts))
    seen: list[tuple[int, int]] = []
    after_update = Trainer.after_update

    def noted(trainer: Trainer, losses: Any) -> None:
        assert trainer.itr is not None
        seen.append((trainer.num_updates, trainer.itr.num_samples))
        after_update(trainer, losses)

    monkeypatch.setattr(Trainer, "after_update", noted)
    often = ["checkpoint.save_interval_updates=4", "callbacks=ema", "trainer.max_update=8"]
    run_dir = train(tmp_path, "batching.max_tokens=200", *often)
    assert [update for update, _ in seen] == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]
    assert [samples for _, samples in seen] == sorted({samples for _, samples in seen})
    state = Checkpoint.open(sorted((run_dir / "checkpoints").glob("update_*"))[-1]).state()
    assert int(state["optimizer"]["optimizer"]["state"][0]["step"]) == 8
