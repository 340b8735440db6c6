"""Checkpoints: whole or absent, verified before use, kept and found by rule, and unable to run code."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from app.config import CheckpointConfig
from app.errors import CheckpointError, StorageError
from app.runtime import checkpoint as module
from app.runtime.checkpoint import Checkpoint, Checkpoints, find
from app.runtime.state import pack, unpack
from tests.faults.victims import SOAK, Record
from tests.runs import checkpoint_config

FILES = ["manifest.json", "model.safetensors", "state.json", "state.safetensors"]


class Tied(nn.Module):
    """Two names, one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(3, 4)
        self.b.weight = self.a.weight


def config(**changes: object) -> CheckpointConfig:
    return checkpoint_config(**({"keep_last": 2} | changes))


def saved(run_dir: Path, update: int, loss: float | None = None, **changes: object) -> Checkpoint:
    torch.manual_seed(update)
    state = {"num_updates": update, "optimizer": {"state": {0: {"m": torch.full((2,), float(update))}}}}
    metrics = {} if loss is None else {"loss": loss}
    return Checkpoints(config(**changes), run_dir).save(update, Tied().state_dict(), None, state, metrics)


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, 7)
    model = Tied()
    checkpoint.load_model(model)
    torch.manual_seed(7)
    expected = Tied().state_dict()
    assert all(torch.equal(model.state_dict()[name], expected[name]) for name in expected)
    assert model.a.weight is model.b.weight
    assert set(checkpoint.tensors("model.safetensors")) == {"a.weight", "b.bias"}
    assert torch.equal(checkpoint.state()["optimizer"]["state"][0]["m"], torch.full((2,), 7.0))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_state_survives_json(state: object) -> None:
    assert unpack(json.loads(json.dumps(pack(state, {}))), {}) == state


def test_state_refuses_what_only_a_pickle_could_hold() -> None:
    with pytest.raises(TypeError, match="callbacks.mine: set cannot be saved"):
        pack({"callbacks": {"mine": {1, 2}}}, {})


@pytest.mark.fault("F06")
@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(name: str, tmp_path: Path, record_property: Record) -> None:
    """Auto-resume falls back to the one before; a checkpoint that is named is refused with the file's name."""
    positions = 20 if SOAK else 5
    record_property("tries", positions)
    for position in range(positions):
        run_dir = tmp_path / str(position)
        saved(run_dir, 1)
        file = saved(run_dir, 2).path / name
        content = bytearray(file.read_bytes())
        offset = len(content) * position // positions
        content[offset] ^= 1 << position % 8
        file.write_bytes(content)
        if name != "manifest.json":
            with pytest.raises(CheckpointError, match=name):
                Checkpoint.open(file.parent).verify()
        newest = Checkpoints(config(), run_dir).newest()
        assert newest is not None
        if name != "manifest.json":  # a flipped bit in the manifest may hit a metric's name, which is harmless
            assert newest.num_updates == 1
            assert "damaged-update_00000002-1" in names(run_dir)


@pytest.mark.fault("F07")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["empty", "cut", "missing", "grown"])
def test_other_damage(name: str, damage: str, tmp_path: Path) -> None:
    saved(tmp_path, 1)
    file = saved(tmp_path, 2).path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "grown": content + b"}"}[damage])
    newest = Checkpoints(config(), tmp_path).newest()
    assert newest is not None
    assert newest.num_updates == 1


@pytest.mark.fault("F07")
def test_files_that_changed_places(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    path = saved(tmp_path, 2).path
    (path / "model.safetensors").rename(path / "held")
    (path / "state.safetensors").rename(path / "model.safetensors")
    (path / "held").rename(path / "state.safetensors")
    newest = Checkpoints(config(), tmp_path).newest()
    assert newest is not None
    assert newest.num_updates == 1


@pytest.mark.fault("F07")
def test_a_file_too_many_is_never_read(tmp_path: Path) -> None:
    path = saved(tmp_path, 1).path
    (path / "averaged.safetensors").write_bytes(b"not of this checkpoint")
    newest = Checkpoints(config(), tmp_path).newest()
    assert newest is not None
    assert newest.inference_weights == "model.safetensors"
    newest.load_model(Tied())


@pytest.mark.fault("F06")
def test_a_named_checkpoint_that_is_damaged_is_refused_with_exit_code_4(tmp_path: Path) -> None:
    file = saved(tmp_path, 1).path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=f"{file}: damaged") as refused:
        find(file.parent, "loss", "min").load_model(Tied())
    assert refused.value.exit_code == 4


@pytest.mark.fault("F30")
def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    path = saved(tmp_path, 1).path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"size": 0, "sha256": ""}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="file name with a path"):
        Checkpoint.open(path)


@pytest.mark.parametrize(
    "entry", [{}, {"size": 1}, {"sha256": ""}, {"size": -1, "sha256": ""}, {"size": "1", "sha256": ""}, None]
)
def test_a_manifest_without_size_or_sha256_is_refused(entry: object, tmp_path: Path) -> None:
    path = saved(tmp_path, 1).path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.json"] = entry
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not a readable manifest"):
        Checkpoint.open(path)


@pytest.mark.fault("F30")
@pytest.mark.parametrize("name", FILES)
def test_a_link_is_not_followed(name: str, tmp_path: Path) -> None:
    file = saved(tmp_path, 1).path / name
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{name}.*a link"):
        Checkpoint.open(file.parent).verify()


def test_no_more_is_read_than_the_manifest_says(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, 1)
    os.truncate(checkpoint.path / "model.safetensors", 2**40)  # more than memory holds
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.verify()


@pytest.mark.fault("F29")
def test_a_pickle_in_place_of_weights_is_refused_unread(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Exploit:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(canary),)

    path = saved(tmp_path, 1).path
    exploit = pickle.dumps(Exploit())
    (path / "model.safetensors").write_bytes(exploit)
    manifest = json.loads((path / "manifest.json").read_text())
    digest = module.hashlib.sha256(exploit).hexdigest()
    manifest["files"]["model.safetensors"] = {"size": len(exploit), "sha256": digest}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        Checkpoint.open(path).load_model(Tied())
    assert not canary.exists()


@pytest.mark.fault("F08")
@pytest.mark.parametrize("stop_at", range(1, 6))
def test_a_write_that_is_cut_off_leaves_the_older_checkpoint(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    fsync, calls = os.fsync, iter(range(1, 100))

    def failing(handle: int) -> None:
        if next(calls) == stop_at:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StorageError, match="No space left on device"):
            saved(tmp_path, 2)
    assert names(tmp_path) == ["update_00000001"]
    saved(tmp_path, 2)
    assert names(tmp_path) == ["update_00000001", "update_00000002"]


@pytest.mark.fault("F05")
def test_order_of_fsync_and_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and the directory are on disk before the name is, and the name before the save returns."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    saved(tmp_path, 1)
    assert calls == ["fsync"] * (len(FILES) + 1) + ["rename", "fsync"]


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / ".update_00000001.tmp-123"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert Checkpoints(config(), tmp_path).newest() is None
    saved(tmp_path, 2)
    assert names(tmp_path) == ["update_00000002"]


def test_saving_the_same_update_again(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 1, loss=0.5)
    assert names(tmp_path) == ["update_00000001"]
    assert Checkpoint.open(tmp_path / "checkpoints" / "update_00000001").metrics == {"loss": 0.5}


@pytest.mark.parametrize(("mode", "best"), [("min", 3), ("max", 2)])
def test_what_is_kept_and_found(mode: str, best: int, tmp_path: Path) -> None:
    for update, loss in enumerate([2.0, 5.0, 1.0, 3.0, 4.0], start=1):
        saved(tmp_path, update, loss, mode=mode)
    assert names(tmp_path) == [f"update_{n:08d}" for n in sorted({best, 4, 5})]
    assert find(tmp_path, "loss", mode).num_updates == best
    assert find(tmp_path / "checkpoints" / "update_00000004", "loss", mode).num_updates == 4


def test_a_run_without_validation_gives_its_newest(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    assert find(tmp_path, "loss", "min").num_updates == 2
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find(tmp_path / "nowhere", "loss", "min")


def test_weights_of_another_model_are_told_apart(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"missing weight.*unexpected a\.weight"):
        checkpoint.load_model(nn.Linear(3, 4, bias=False))
    other = Tied()
    other.b = nn.Linear(3, 5)
    with pytest.raises(CheckpointError, match=r"b\.bias is \[4\] instead of \[5\]"):
        checkpoint.load_model(other)


def test_weights_may_be_taken_in_part_but_not_none_of_them(tmp_path: Path) -> None:
    checkpoint, other = saved(tmp_path, 1), Tied()
    other.b = nn.Linear(3, 5)
    assert checkpoint.load_model(other, partial=True) == [
        "missing b.weight",
        "b.bias is [4] instead of [5]",
    ]
    assert torch.equal(other.a.weight, checkpoint.tensors("model.safetensors")["a.weight"])
    with pytest.raises(CheckpointError, match="weights of another model"):
        checkpoint.load_model(nn.Linear(9, 9), partial=True)
