"""The training flow: it learns, stops where it is told, and a resumed run is the run that was never stopped."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from app.assembly import restore
from app.errors import ConfigError, LockedError, NumericsError, Stopped
from app.runtime.checkpoint import Checkpoint, Checkpoints
from app.runtime.lock import locked
from app.trainer import Trainer
from tests.runs import train, write_corpus

NO_EPOCHS = "trainer.validate_interval=0"


def checkpoints(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    (path,) = sorted((run_dir / "checkpoints").glob("update_*"))[-1:]
    return Checkpoint.open(path).tensors("model.safetensors")


def metrics(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Interrupt:
    """Sends this process a signal after some update."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, update: int):
        after_update = Trainer.after_update

        def interrupted(trainer: Trainer, losses: Any) -> None:
            after_update(trainer, losses)
            if trainer.num_updates == update:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Trainer, "after_update", interrupted)


def test_it_learns(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "trainer.max_update=60", "trainer.validate_interval_updates=20", NO_EPOCHS)
    losses = [line["loss"] for line in metrics(run_dir, "valid")]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize(("limit", "value"), [("max_update=7", 7), ("stop_time_hours=1e-9", 0)])
def test_limits_by_updates_and_time(limit: str, value: int, tmp_path: Path) -> None:
    run_dir = train(tmp_path, "batching.max_tokens=600", "trainer.max_update=100", f"trainer.{limit}")
    assert checkpoints(run_dir)[-1] == f"update_{value:08d}"


def test_limit_by_epochs(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "batching.max_tokens=600", "trainer.max_epoch=2")
    assert [line["epoch"] for line in metrics(run_dir, "valid")] == [1, 2]
    state = Checkpoint.open(sorted((run_dir / "checkpoints").iterdir())[-1]).state()
    assert state["iterator"] == {"epoch": 3, "num_samples": 0}


def test_patience(tmp_path: Path) -> None:
    run_dir = train(
        tmp_path,
        NO_EPOCHS,
        "lr_scheduler=fixed",
        "optimizer.lr=0.5",
        "trainer.patience=3",
        "trainer.validate_interval_updates=1",
    )
    losses = [line["loss"] for line in metrics(run_dir, "valid")]
    assert min(losses[-3:]) >= min(losses[:-3])
    assert len(losses) < 100


@pytest.mark.parametrize(
    "extra", [(), ("callbacks=ema", "trainer.update_freq=2"), ("lr_scheduler=fixed",), ("batching.window=40",)]
)
def test_a_resumed_run_is_the_unbroken_one(extra: tuple[str, ...], tmp_path: Path) -> None:
    common = ["batching.max_tokens=200", "trainer.validate_interval_updates=9", *extra]
    corpus = train(tmp_path / "whole", *common, "trainer.max_update=30").parent / "corpus"
    for until in (3, 13, 30):
        train(tmp_path / "broken", *common, f"trainer.max_update={until}", corpus=corpus)
    whole, broken = tmp_path / "whole" / "run", tmp_path / "broken" / "run"
    assert equal(weights(whole), weights(broken))
    state, other = (
        Checkpoint.open(sorted((run / "checkpoints").glob("update_*"))[-1]).state() for run in (whole, broken)
    )
    assert state["iterator"] == other["iterator"]
    last, other_last = (metrics(run, "valid")[-1]["loss"] for run in (whole, broken))
    assert last == other_last


def test_dropout_is_part_of_what_is_resumed(tmp_path: Path) -> None:
    """The control of the test above: with other random draws the weights are others."""
    common = ["batching.max_tokens=200", "trainer.max_update=10"]
    corpus = train(tmp_path / "one", *common).parent / "corpus"
    train(tmp_path / "two", *common, "batching.seed=1", "seed=2", corpus=corpus)
    assert not equal(weights(tmp_path / "one" / "run"), weights(tmp_path / "two" / "run"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["batching.max_tokens=200", "trainer.max_update=12"]
    corpus = train(tmp_path / "whole", *common).parent / "corpus"
    with monkeypatch.context() as patch:
        Interrupt(patch, number, 5)
        with pytest.raises(Stopped) as stopped:
            train(tmp_path / "broken", *common, corpus=corpus)
    assert stopped.value.exit_code == 128 + number
    assert checkpoints(tmp_path / "broken" / "run") == ["update_00000005"]
    run_dir = train(tmp_path / "broken", *common, corpus=corpus)
    assert equal(weights(run_dir), weights(tmp_path / "whole" / "run"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_which_checkpoints_are_kept(tmp_path: Path) -> None:
    run_dir = train(
        tmp_path,
        "batching.max_tokens=200",
        "trainer.max_update=20",
        "trainer.validate_interval_updates=4",
        NO_EPOCHS,
        "checkpoint.keep_last=2",
        "checkpoint.keep_best=1",
    )
    valid = {line["num_updates"]: line["loss"] for line in metrics(run_dir, "valid")}
    best = min(valid, key=lambda update: valid[update])
    assert checkpoints(run_dir) == [f"update_{n:08d}" for n in sorted({16, 20, best})]
    assert restore(run_dir).checkpoint.num_updates == best


def test_ema_translates_with_the_average(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "callbacks=ema", "trainer.max_update=10")
    restored = restore(run_dir)
    averaged = restored.checkpoint.tensors("averaged.safetensors")
    newest = weights(run_dir)
    name = "decoder.layers.0.fc1.weight"
    assert torch.equal(restored.model.state_dict()[name], averaged[name])
    assert not torch.equal(averaged[name], newest[name])


def test_ema_is_the_running_average() -> None:
    from types import SimpleNamespace

    from app.callbacks.ema import EMA, EMAConfig

    trainer = SimpleNamespace(model=torch.nn.Linear(1, 1, bias=False), num_updates=0)
    ema, expected = EMA(EMAConfig(0.5, 1)), 0.0
    with torch.no_grad():
        trainer.model.weight.fill_(0.0)
        ema.on_start(trainer)
        for trainer.num_updates in range(1, 9):
            trainer.model.weight.fill_(float(trainer.num_updates))
            ema.after_update(trainer)
            n = trainer.num_updates - 1
            decay = min(0.5, (1 + n) / (10 + n)) if n > 0 else 0.0
            expected = decay * expected + (1 - decay) * trainer.num_updates
    assert ema.averaged()["weight"].item() == pytest.approx(expected)
    ema.before_validation(trainer)
    assert trainer.model.weight.item() == pytest.approx(expected)
    ema.after_validation(trainer, {})
    assert trainer.model.weight.item() == 8.0


def test_other_settings_in_the_same_directory_are_refused(tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_update=2")
    with pytest.raises(ConfigError, match=r"model.dropout: 0.1 there, 0.2 now"):
        train(tmp_path, "trainer.max_update=2", "model.dropout=0.2")
    train(tmp_path, "trainer.max_update=3", "trainer.log_interval=1")


def test_settings_that_shape_nothing_may_change(tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_update=2")
    train(tmp_path, "trainer.max_update=3", "task.num_workers=2", "batching.prefetch=0", "task.on_bad_line=skip")


@pytest.mark.parametrize("change", ["trainer.update_freq=2", "precision=bf16", "callbacks=ema"])
def test_settings_that_shape_the_result_may_not(change: str, tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_update=2")
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        train(tmp_path, "trainer.max_update=2", change)


def test_before_the_first_checkpoint_everything_may_change(tmp_path: Path) -> None:
    run_dir = train(tmp_path, "trainer.max_update=2")
    shutil.rmtree(run_dir / "checkpoints")
    train(tmp_path, "trainer.max_update=2", "model.dropout=0.2")
    assert restore(run_dir).cfg.model["dropout"] == 0.2


def test_pieces_keep_their_numbers_when_the_text_changes(tmp_path: Path) -> None:
    """What is learnt from the text is learnt once in a run: the weights know the pieces by their numbers."""
    run_dir = train(tmp_path, "trainer.max_update=2")
    before = restore(run_dir).task.source_vocabulary
    write_corpus(tmp_path / "corpus", seed=7)
    with (tmp_path / "corpus" / "train.xx").open("a") as source, (tmp_path / "corpus" / "train.yy").open("a") as target:
        source.write("unseen words\n" * 50)
        target.write("MORE\n" * 50)
    train(tmp_path, "trainer.max_update=4")
    assert restore(run_dir).task.source_vocabulary == before


def test_finetuning_on_other_text_keeps_the_vocabularies(tmp_path: Path) -> None:
    first = train(tmp_path / "first", "trainer.max_update=2")
    other = write_corpus(tmp_path / "other", seed=5)
    (other / "train.xx").write_text((other / "train.xx").read_text().replace("ba", "new"))
    second = train(tmp_path / "second", "trainer.max_update=1", f"checkpoint.finetune_from={first}", corpus=other)
    vocabularies = [restore(run_dir).task.source_vocabulary for run_dir in (first, second)]
    assert vocabularies[0] == vocabularies[1]


def test_a_validation_that_is_not_a_number_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate, values = Trainer.validate, iter([float("nan"), 3.0, 2.0])
    monkeypatch.setattr(Trainer, "validate", lambda trainer: validate(trainer) | {"loss": next(values)})
    run_dir = train(tmp_path, NO_EPOCHS, "trainer.max_update=3", "trainer.validate_interval_updates=1")
    assert [line.get("best_loss") for line in metrics(run_dir, "valid")] == [None, 3.0, 2.0]
    assert restore(run_dir).checkpoint.num_updates == 3


def test_another_metric_starts_its_own_best(tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_update=2")
    run_dir = train(tmp_path, "trainer.max_update=4", "checkpoint.metric=ppl")
    last = metrics(run_dir, "valid")[-1]
    assert last["best_ppl"] == last["ppl"]


def test_a_run_that_must_not_resume_overwrites_nothing(tmp_path: Path) -> None:
    train(tmp_path, "trainer.max_update=2", "checkpoint.resume=false")
    with pytest.raises(ConfigError, match="the checkpoints of .* would be overwritten"):
        train(tmp_path, "trainer.max_update=2", "checkpoint.resume=false")


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(LockedError, match=f"process {os.getpid()}"):
        train(tmp_path, "trainer.max_update=1")


def test_finetuning_starts_from_the_weights(tmp_path: Path) -> None:
    first = train(tmp_path / "first", "trainer.max_update=40")
    corpus = tmp_path / "first" / "corpus"
    still = ["trainer.max_update=1", "optimizer.lr=1e-9", f"checkpoint.finetune_from={first}"]
    second = train(tmp_path / "second", *still, corpus=corpus)
    before, after = weights(first), weights(second)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_gradients_that_stay_not_finite_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.runtime.precision import PreciseOptimizer

    monkeypatch.setattr(PreciseOptimizer, "average_and_clip", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(NumericsError, match="10 times in a row"):
        train(tmp_path, "batching.max_tokens=200")


def test_bf16_learns_as_fp32_does(tmp_path: Path) -> None:
    common = ["trainer.max_update=40", "trainer.validate_interval_updates=40"]
    losses = []
    for precision in ("fp32", "bf16"):
        run_dir = train(tmp_path / precision, *common, f"precision={precision}", corpus=tmp_path / "fp32" / "corpus")
        losses.append(metrics(run_dir, "valid")[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_validation_translates(tmp_path: Path) -> None:
    by_bleu = ["trainer.decode_valid=true", "checkpoint.metric=bleu", "checkpoint.mode=max", "search.max_len_b=20"]
    run_dir = train(tmp_path, "trainer.max_update=4", "trainer.validate_interval=2", *by_bleu)
    (line,) = metrics(run_dir, "valid")
    assert {"bleu", "chrf", "best_bleu", "loss", "nll_loss", "ppl"} <= line.keys()
    assert Checkpoints(restore(run_dir).cfg.checkpoint, run_dir).best()[0].metrics["bleu"] == line["bleu"]


def test_a_validation_line_that_is_too_long_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    with (corpus / "valid.xx").open("a") as source, (corpus / "valid.yy").open("a") as target:
        source.write("ba " * 100 + "\n")
        target.write("BA\n")
    by_bleu = ["trainer.decode_valid=true", "search.max_len_b=20"]
    run_dir = train(tmp_path, "trainer.max_update=2", "trainer.validate_interval=2", *by_bleu)
    assert "bleu" in metrics(run_dir, "valid")[0]
    assert "valid: 1 too long to be translated" in caplog.text
