"""The real fairseq's trainer: from its weights and batches, the numbers of every update and the final weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from app.config import TrainerConfig
from app.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropy, LabelSmoothedCrossEntropyConfig
from app.data.batch import Batch
from app.interfaces import Task
from app.lr_schedulers.inverse_sqrt import InverseSquareRoot, InverseSquareRootConfig
from app.optimizers.adam import Adam, AdamConfig
from app.runtime.precision import PreciseOptimizer, Precision, PrecisionConfig
from app.trainer import Parts, Trainer
from tests.golden import cases
from tests.golden.cases import Case, claimed, vocabulary
from tests.runs import checkpoint_config

PAD = 1


class GivenBatches:
    """A task of fixed batches in a given order, with fairseq's own train_step inherited from `Task`."""

    train_step, valid_step = Task.train_step, Task.valid_step

    def __init__(self, case: Case):
        self.case = case
        used = sorted({i for update in case.spec["updates"] for i in update["batches"]})
        self.batches = {i: self.batch(case.under(f"batch/{i}")) for i in used}
        self.source_vocabulary = vocabulary(case.tensors["init/param/encoder.embed_tokens.weight"].size(0))
        self.target_vocabulary = vocabulary(case.tensors["init/param/decoder.embed_tokens.weight"].size(0))

    @staticmethod
    def batch(tensors: dict[str, torch.Tensor]) -> Batch:
        target, source = tensors["target"], tensors["src_tokens"]
        ids, lengths = torch.arange(len(target)), source.ne(PAD).sum(1)
        return Batch(ids, source, lengths, tensors["prev_output_tokens"], target, int(target.ne(PAD).sum()))

    def dataset(self, split: str) -> None:
        return None

    def get_batch_iterator(self, dataset: None, epoch: int | None = None, shard: Any = None) -> Any:
        case = self.case

        class Iterator(list):  # type: ignore[type-arg]
            padding, num_samples = 0.0, 0

            def steps(self) -> Any:
                return iter(self)

            def is_done(self) -> bool:
                return False

            def state_dict(self) -> dict[str, int]:
                return {"epoch": epoch or 0, "num_samples": 0}

        if epoch is None:
            return Iterator([self.batches[0]])
        return Iterator(self.batches[i] for update in case.spec["updates"] for i in update["batches"])


class Recorder:
    """Keeps what the trainer logs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, kind: str, num_updates: int, metrics: dict[str, float]) -> None:
        if kind == "train":
            self.rows.append(metrics)


def flag(case: Case, name: str, default: str) -> str:
    flags = case.spec["flags"]
    return str(flags[flags.index(name) + 1]) if name in flags else default


def trainer(case: Case, run_dir: Path, recorder: Any) -> Trainer:
    task: Any = GivenBatches(case)
    model = cases.transformer(case.spec["model_config"], case.under("init/param"), task)
    smoothing = LabelSmoothedCrossEntropyConfig(float(flag(case, "--label-smoothing", "0")), 0, False, False, 0.0)
    betas = [float(beta) for beta in flag(case, "--adam-betas", "(0.9, 0.999)").strip("()").split(",")]
    decay = float(flag(case, "--weight-decay", "0"))
    inner = Adam(AdamConfig(float(flag(case, "--lr", "0")), betas, 1e-8, decay), model.parameters())
    rise = int(flag(case, "--warmup-updates", "0"))
    warmup = InverseSquareRootConfig(rise, float(flag(case, "--warmup-init-lr", "0")))
    precision = Precision(PrecisionConfig("fp32", 1.0, 1), torch.device("cpu"))
    criterion = LabelSmoothedCrossEntropy(smoothing, task)
    parts = Parts(task, model, criterion, PreciseOptimizer(inner, precision), InverseSquareRoot(warmup, inner), {})
    cfg = TrainerConfig(
        max_epoch=1,
        max_update=len(case.spec["updates"]),
        stop_time_hours=0,
        patience=0,
        update_freq=case.spec["update_freq"],
        clip_norm=float(flag(case, "--clip-norm", "0")),
        max_nonfinite_updates=10,
        on_loss_spike="log",
        try_longest_batch=False,
        validate_interval=1,
        validate_interval_updates=0,
        log_interval=1,
        train_split="train",
        valid_split="valid",
        decode_valid=False,
        num_threads=0,
        device="cpu",
        profile=False,
    )
    return Trainer(cfg, checkpoint_config(), 1, run_dir, parts, recorder)


@pytest.fixture
def trained(case: Case, tmp_path: Path) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    ours = trainer(case, tmp_path, recorder)
    ours.train()
    assert ours.num_updates == len(case.spec["updates"]) == len(recorder.rows)
    return ours, recorder


@pytest.mark.parametrize("case", claimed("training", "*"))
class TestTwentyUpdates:
    def test_final_weights_and_rates(self, case: Any, trained: Any) -> None:
        ours, recorder = trained
        final = case.under("final/param")
        for name, weight in ours.model.state_dict().items():
            if name.endswith("k_proj.bias"):  # its gradient is zero but for rounding, which Adam makes a step of
                assert float((weight - final[name]).abs().max()) < sum(u["lr_after"] for u in case.spec["updates"])
            else:
                torch.testing.assert_close(weight, final[name], rtol=1e-4, atol=1e-5)
        rates = [update["lr_after"] for update in case.spec["updates"]]
        assert [row["lr"] for row in recorder.rows] == pytest.approx(rates, rel=1e-9)

    def test_what_is_logged(self, case: Any, trained: Any, tmp_path: Path) -> None:
        rows, theirs = trained[1].rows, case.spec["updates"]
        first = first_loss(case, tmp_path / "again")
        assert rows[0]["loss"] == pytest.approx(first, rel=1e-5)
        if first != pytest.approx(theirs[0]["loss_base2_per_token"], rel=1e-4):
            pytest.xfail("the file's losses are not those of its own weights and batches, from the first update on")
        for row, their in zip(rows, theirs, strict=True):
            assert row["loss"] == pytest.approx(their["loss_base2_per_token"], rel=1e-4)
            assert row["nll_loss"] == pytest.approx(their["nll_loss_base2_per_token"], rel=1e-4)
            assert row["gnorm"] == pytest.approx(their["grad_norm_before_clipping"], rel=1e-4)
            assert row["ppl"] == pytest.approx(2 ** their["nll_loss_base2_per_token"], rel=1e-3)


def first_loss(case: Case, run_dir: Path) -> float:
    """The loss of the untrained weights on the first update's batches, by the definition and nothing of the trainer."""
    fresh = trainer(case, run_dir, Recorder())
    task: Any = fresh.task
    smoothing, total, tokens = float(flag(case, "--label-smoothing", "0")), 0.0, 0
    for i in case.spec["updates"][0]["batches"]:
        batch = task.batches[i]
        lprobs = fresh.model.project(fresh.model(batch)).log_softmax(-1)
        spread = smoothing / (lprobs.size(-1) - 1)
        nll = -lprobs.gather(-1, batch.target[..., None])[..., 0]
        loss = (1 - smoothing - spread) * nll - spread * lprobs.sum(-1)
        total, tokens = total + loss[batch.target.ne(PAD)].sum().item(), tokens + batch.num_tokens
    return total / tokens / math.log(2)
