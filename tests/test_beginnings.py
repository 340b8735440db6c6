"""A run that begins with another's weights, and with as much of its state as is asked for; and changed settings."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from app.errors import CheckpointError, ConfigError
from app.runtime.checkpoint import Checkpoint
from app.trainer import Trainer
from tests.runs import train

COMMON = ["batching.max_tokens=300", "trainer.validate_interval=0", "trainer.max_update=1"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 updates, some of them in its second epoch."""
    return train(tmp_path_factory.mktemp("first"), *COMMON, "trainer.max_update=12")


class Started(Exception):  # noqa: N818 - it is no error
    """Ends a run before its first update."""


@pytest.fixture
def begun(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How a run stands before its first update."""

    def begin(*overrides: str) -> Trainer:
        seen: list[Trainer] = []

        def stop(trainer: Trainer) -> None:
            seen.append(trainer)
            raise Started

        monkeypatch.setattr(Trainer, "train", stop)
        with pytest.raises(Started):
            train(tmp_path, *COMMON, f"checkpoint.finetune_from={first}", *overrides, corpus=first.parent / "corpus")
        return seen[0]

    return begin


def saved(first: Path) -> Checkpoint:
    return Checkpoint.open(first / "checkpoints" / "update_00000012")


def test_weights_alone_are_the_rule(begun: Any, first: Path) -> None:
    trainer = begun()
    weights = saved(first).tensors("model.safetensors")
    assert all(torch.equal(trainer.model.state_dict()[name], weights[name]) for name in weights)
    assert not trainer.optimizer.inner.state
    assert (trainer.num_updates, trainer.epoch, trainer.position, trainer.judgement.best) == (0, 1, None, None)


def test_the_optimizers_state_may_come_along(begun: Any, first: Path) -> None:
    trainer = begun("checkpoint.reset_optimizer=false", "optimizer.weight_decay=0.01", "optimizer.lr=1e-4")
    moments = saved(first).state()["optimizer"]["optimizer"]["state"]
    state = trainer.optimizer.inner.state_dict()
    assert state["state"].keys() == moments.keys()
    assert all(torch.equal(state["state"][i]["exp_avg"], moments[i]["exp_avg"]) for i in moments)
    assert state["param_groups"][0]["weight_decay"] == 0.01  # settings are those of the new run
    assert trainer.optimizer.lr == trainer.lr_scheduler.lr_at(0)
    assert (trainer.num_updates, trainer.position) == (0, None)


def test_so_may_the_schedule_the_meters_and_the_position(begun: Any, first: Path) -> None:
    state = saved(first).state()
    trainer = begun("checkpoint.reset_lr_scheduler=false")
    assert trainer.num_updates == 12
    assert trainer.optimizer.lr == trainer.lr_scheduler.lr_at(12)
    assert trainer.epoch == 1
    trainer = begun("checkpoint.reset_dataloader=false", "checkpoint.reset_meters=false")
    assert trainer.position == state["iterator"]
    assert trainer.epoch == state["iterator"]["epoch"]
    assert trainer.wall_before == state["train_wall"]
    assert trainer.num_updates == 0


def test_with_all_of_it_the_run_goes_on_as_if_it_were_the_first(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, flags = (
        first.parent / "corpus",
        [f"checkpoint.reset_{part}=false" for part in ("optimizer", "lr_scheduler")],
    )
    flags += ["checkpoint.reset_dataloader=false", f"checkpoint.finetune_from={first}", "trainer.max_update=15"]
    second = train(tmp_path / "second", *COMMON, *flags, corpus=corpus)
    whole = train(tmp_path / "whole", *COMMON, "trainer.max_update=15", corpus=corpus)
    ours, theirs = (
        Checkpoint.open(run / "checkpoints" / "update_00000015").tensors("model.safetensors") for run in (second, whole)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_optimizers_state_is_refused(first: Path, tmp_path: Path) -> None:
    flags = [f"checkpoint.finetune_from={first}", "optimizer=adagrad", "checkpoint.reset_optimizer=false"]
    with pytest.raises(ConfigError, match=r"reset_optimizer=False: .* was trained with app.optimizers.adam.Adam, not"):
        train(tmp_path, *COMMON, *flags, corpus=first.parent / "corpus")


@pytest.mark.parametrize("left_out", ["checkpoint", "optimizer"])
def test_a_run_whose_configuration_lacks_a_part_is_refused(first: Path, tmp_path: Path, left_out: str) -> None:
    old = Path(shutil.copytree(first, tmp_path / "old"))
    values = yaml.safe_load((old / "config.yaml").read_text())
    (old / "config.yaml").write_text(yaml.safe_dump({**values, left_out: None}))
    flags = [f"checkpoint.finetune_from={old}", "checkpoint.reset_optimizer=false"]
    with pytest.raises(CheckpointError, match=rf"old/config.yaml: has no {left_out}\..*; put the file back"):
        train(tmp_path, *COMMON, *flags, corpus=first.parent / "corpus")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["checkpoint.reset_meters=false"], "says what finetune_from gives, which is not set"),
        (
            ["checkpoint.finetune_from=.", "checkpoint.finetune_partial=true", "checkpoint.reset_optimizer=false"],
            "belongs to weights that all fit",
        ),
    ],
)
def test_flags_that_say_nothing_are_refused(flags: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, *flags)


def test_a_larger_model_takes_what_fits_and_says_what_does_not(
    begun: Any, first: Path, caplog: pytest.LogCaptureFixture
) -> None:
    larger = ["model.encoder_layers=2", "model.decoder_ffn_embed_dim=48"]
    with pytest.raises(CheckpointError, match=r"missing encoder.layers.1"):
        train(first.parent / "refused", *COMMON, *larger, f"checkpoint.finetune_from={first}")
    caplog.set_level("INFO")
    trainer = begun(*larger, "checkpoint.finetune_partial=true")
    weights, own = saved(first).tensors("model.safetensors"), trainer.model.state_dict()
    name = "encoder.layers.0.fc1.weight"
    assert torch.equal(own[name], weights[name])
    assert own["decoder.layers.0.fc1.weight"].shape != weights["decoder.layers.0.fc1.weight"].shape
    assert "42 of 61 weights taken" in caplog.text
    assert "not taken: missing encoder.layers.1." in caplog.text
    assert "not taken: decoder.layers.0.fc1.weight is" in caplog.text


@pytest.mark.fault("F33")
def test_what_may_differ_is_named_and_takes_effect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, *COMMON, "trainer.max_update=2")
    changes = ["trainer.max_update=3", "trainer.log_interval=7", "optimizer.lr=1e-4", "optimizer.weight_decay=0.5"]
    with pytest.raises(ConfigError, match=r"optimizer.lr: 0.005 there, 0.0001 now") as refused:
        train(tmp_path, *COMMON, *changes, "checkpoint.may_differ=[optimizer.weight_decay]")
    assert len(refused.value.faults) == 2
    caplog.set_level("INFO")
    run_dir = train(tmp_path, *COMMON, *changes, "checkpoint.may_differ=[optimizer]")
    assert "changed since the last start: trainer.log_interval: 5 there, 7 now" in caplog.text
    state = Checkpoint.open(run_dir / "checkpoints" / "update_00000003").state()
    group = state["optimizer"]["optimizer"]["param_groups"][0]
    assert group["weight_decay"] == 0.5
    assert group["lr"] == pytest.approx(1e-4 * 3 / 10)
