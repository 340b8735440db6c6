"""A run's configuration is read back where settings have been added since, and refused where some are gone."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import average, generate, old_runs
from app.assembly import restore
from app.errors import CheckpointError, ConfigError
from app.hub import load
from app.old_runs import complete
from app.run_config import flat, stored
from app.runtime.checkpoint import Checkpoint
from tests.runs import configured, train

USER_DIRS = Path(__file__).parent / "user_dirs"
NEWER = {  # settings that an older run lacks, and what they are taken to be
    "trainer.profile": False,
    "trainer.update_freq": 1,
    "batching.window": 0,  # what was done before there were any, which is not the default
    "batching.order": "lengths",
    "distributed.overlap": True,
    "callbacks": {},
    "model.activation_fn": "relu",
    "model.decoder_kv_heads": None,  # that of the encoder
    "model.decoder_embed_dim": 32,
    "task.train_split": "train",
    "task.prepend_bos": False,
    "criterion.z_loss": 0.0,
    "lr_scheduler.warmup_init_lr": 0.0,
    "precision.init_scale": 128.0,
}
COMMON = ["trainer.validate_interval=0", "checkpoint.keep_last=9", "batching.window=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), *COMMON, "trainer.max_update=3")


def edited(directory: Path, without: tuple[str, ...] = (), **groups: dict[str, Any]) -> Path:
    """Write a run's configuration anew: without some settings, and with others."""
    values = stored(directory / "config.yaml")
    for key in without:
        *place, name = key.split(".")
        del (values[place[0]] if place else values)[name]
    for group, more in groups.items():
        values[group] |= more
    (directory / "config.yaml").write_text(yaml.safe_dump(values))
    return directory


@pytest.fixture
def old(run: Path, tmp_path: Path) -> Path:
    """The run, as it would be had it been trained before there were `NEWER`."""
    shutil.copytree(run.parent, tmp_path, dirs_exist_ok=True)
    return edited(tmp_path / "run", tuple(NEWER))


def test_what_is_newer_than_a_run_is_taken_from_conf_and_told(run: Path, old: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    assert restore(old).cfg == restore(run).cfg
    (told,) = (line for line in caplog.messages if str(old / "config.yaml") in line)
    assert "model.decoder_embed_dim=32" in told
    assert complete(stored(old / "config.yaml")) == NEWER
    assert complete(stored(run / "config.yaml")) == {}


def test_an_older_run_is_translated_with_and_averaged(run: Path, old: Path, tmp_path: Path) -> None:
    lines = ["ba de", "gu ko ba"]
    assert load(old).translate(lines) == load(run).translate(lines)
    out = tmp_path / "out"
    generate.run(*configured([f"checkpoint={old}", "num_threads=1", f"output_file={out}"], "generate"))
    assert len(out.read_text().splitlines()) == 20
    average.run(*configured([f"run={old}", "last=1", f"output={tmp_path / 'averaged'}"], "average"))
    assert load(tmp_path / "averaged").translate(lines) == load(run).translate(lines)


def test_an_older_run_is_gone_on_with(run: Path, old: Path) -> None:
    def weights(directory: Path) -> bytes:
        return (directory / "checkpoints" / "update_00000005" / "model.safetensors").read_bytes()

    longer = [*COMMON, "trainer.max_update=5"]
    train(old.parent, *longer, corpus=run.parent / "corpus")
    whole = train(old.parent / "whole", *longer, corpus=run.parent / "corpus")
    assert weights(old) == weights(whole)


def test_an_older_run_is_not_gone_on_with_where_it_would_be_another(run: Path, old: Path) -> None:
    changed = ["model.activation_fn=gelu", "batching.window=100"]
    with pytest.raises(ConfigError, match="holds a run with other settings") as refused:
        train(old.parent, *COMMON, *changed, corpus=run.parent / "corpus")
    told = ["batching.window: 0 there, 100 now", "model.activation_fn: relu there, gelu now"]
    assert refused.value.faults[1:] == told


def test_an_older_run_may_be_started_from(old: Path, tmp_path: Path) -> None:
    given = [f"checkpoint.finetune_from={old}", "checkpoint.reset_optimizer=false", "trainer.max_update=1"]
    new = train(tmp_path / "new", *COMMON, *given, corpus=old.parent / "corpus")
    assert Checkpoint.open(new / "checkpoints" / "update_00000001").num_updates == 1


def test_what_is_gone_is_named(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parent, tmp_path, dirs_exist_ok=True)
    copy = tmp_path / "run"
    edited(copy, model={"droput": 0.1})
    with pytest.raises(ConfigError, match=rf"{copy}: model.droput: no such key; the nearest is model.dropout"):
        restore(copy)
    with pytest.raises(ConfigError, match="model.droput: 0.1 there, None now"):
        train(tmp_path, *COMMON, "trainer.max_update=5", corpus=run.parent / "corpus")
    edited(copy, trainer={"wheels": 4})
    with pytest.raises(CheckpointError, match=r"config.yaml: .* trainer.wheels: no such key"):
        restore(copy)


def test_what_was_a_choice_is_not_guessed(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    edited(tmp_path / "run", ("model", "task.data"))
    with pytest.raises(CheckpointError, match="model: missing"):
        restore(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\nmodel: {}\n")  # the rest was lost
    with pytest.raises(CheckpointError, match="batching: missing"):
        restore(tmp_path / "run")


def test_classes_within_classes_and_of_users(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(USER_DIRS))
    monkeypatch.setattr(old_runs, "PACKAGES", {"app", "my_module"})
    values = stored(run / "config.yaml")
    values["model"] = {"_target_": "my_module.windowed_transformer.WindowedTransformer", "encoder_embed_dim": 8}
    part = {"_target_": "app.criterions.cross_entropy.CrossEntropy", "sentence_avg": False}
    parts = {"words.of": {"weight": 1.0, "criterion": part}}
    values["criterion"] = {"_target_": "app.criterions.composite_loss.CompositeLoss", "parts": parts}
    added = complete(values)
    assert part["z_loss"] == added["criterion.parts.words.of.criterion.z_loss"] == 0
    assert values["model"]["window"] == 3
    assert values["model"]["decoder_embed_dim"] == 8
    assert flat(values)["model.encoder_layers"] == 2


def test_other_libraries_have_defaults_of_their_own(run: Path) -> None:
    values = stored(run / "config.yaml")
    values["optimizer"] = {"_target_": "torch.optim.AdamW", "lr": 1.0}
    assert complete(values) == {}


def test_a_default_does_not_resolve_what_was_stored(run: Path) -> None:
    values = stored(run / "config.yaml")
    del values["model"]["decoder_embed_dim"], values["task"]["train_split"]
    values["model"]["encoder_embed_dim"] = "${oc.env:HOME}"
    values["trainer"]["train_split"] = "${oc.env:HOME}"
    assert complete(values) == {"task.train_split": "train"}
