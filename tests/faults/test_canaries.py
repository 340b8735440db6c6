"""No file that a user loads can run code: exploits are refused, and what they would have done was not done."""

import io
import json
import os
import pickle
import resource
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from app.assembly import restore
from app.errors import CheckpointError, UserError
from app.runtime.checkpoint import Checkpoint
from app.runtime.storage import described
from tests.faults.victims import newest
from tests.runs import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), "trainer.max_update=1", "trainer.validate_interval=0")


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


class Exploit:
    """Makes the directory `canary` when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def archive(canary: Path) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save({"model": Exploit(canary)}, buffer)
    return buffer.getvalue()


def bomb(canary: Path) -> bytes:
    """A zip of 200 kB that becomes 200 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("archive/data.pkl", bytes(200_000_000))
    return buffer.getvalue()


EXPLOITS = {
    "pickle": lambda canary: pickle.dumps(Exploit(canary)),
    "torch.save": archive,
    "old torch.save": lambda canary: pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(Exploit(canary)),
    "numpy object array": lambda canary: b"\x93NUMPY\x01\x00" + pickle.dumps(Exploit(canary)),
    "zip bomb": bomb,
    "a header of 10 GB": lambda canary: struct.pack("<Q", 10 * 2**30) + b"{}",
    "a tensor of 10 TB": lambda canary: tensor_beyond_the_file(),
}


def tensor_beyond_the_file() -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[2500000000000],"data_offsets":[0,10000000000000]}}'
    return struct.pack("<Q", len(header)) + header


def put(checkpoint: Checkpoint, name: str, content: bytes) -> None:
    """Replace a file, with a manifest that agrees: whoever wrote the one could write the other."""
    (checkpoint.path / name).write_bytes(content)
    manifest = checkpoint.path / "manifest.json"
    values = json.loads(manifest.read_text())
    values["files"][name] = described(content)
    manifest.write_text(json.dumps(values))


@pytest.mark.fault("F29")
@pytest.mark.parametrize("name", EXPLOITS)
def test_an_exploit_in_place_of_weights(name: str, run_dir: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    put(newest(run_dir), "model.safetensors", EXPLOITS[name](canary))
    with pytest.raises(CheckpointError, match="model.safetensors: not a safetensors file") as refused:
        restore(run_dir)
    assert refused.value.exit_code == 4
    assert not canary.exists()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 500  # MiB


TARGETS = [
    "torch.load",
    "torch.hub.load",
    "torch.utils.collect_env.run",
    "torch.utils.cpp_extension.load_inline",
    "torch.optim.os.system",
    "pathlib.Path.write_text",
    "logging.os.system",
    "builtins.open",
    "app.assembly.torch.load",
    "app.runtime.storage.shutil.rmtree",
    "app.cli.os.system",
]


@pytest.mark.fault("F30")
@pytest.mark.parametrize("group", ["task", "model", "tokenizer"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_in_a_stored_configuration(target: str, group: str, run_dir: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    change(run_dir, group, {"_target_": target, "command": f"touch {canary}", "args": [f"touch {canary}"]})
    with pytest.raises(UserError, match=f"{group}._target_={target}: "):
        restore(run_dir)
    assert not canary.exists()


@pytest.mark.fault("F30")
def test_an_interpolation_in_a_stored_configuration_is_text(run_dir: Path) -> None:
    for value in ("${oc.env:HOME}", "${oc.decode:1}", "${run_name:}"):
        change(run_dir, "model", {"activation_fn": value})
        with pytest.raises(UserError, match=r"holds an interpolation, which is not resolved here"):
            restore(run_dir)


@pytest.mark.fault("F30")
@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/name:os.system"])
def test_a_tag_in_a_stored_configuration(tag: str, run_dir: Path, tmp_path: Path) -> None:
    path = run_dir / "config.yaml"
    path.write_text(path.read_text() + f"\nmore: {tag} ['{tmp_path / 'canary'}']\n")
    with pytest.raises(CheckpointError, match="not a readable configuration"):
        restore(run_dir)
    assert not (tmp_path / "canary").exists()


@pytest.mark.fault("F30")
@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "sub/x"])
def test_a_manifest_that_points_elsewhere(name: str, run_dir: Path) -> None:
    manifest = newest(run_dir).path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"model.safetensors"', f'"{name}"'))
    with pytest.raises(CheckpointError, match="not in the manifest|not a readable manifest|holds no checkpoint"):
        restore(run_dir)


def change(run_dir: Path, group: str, values: dict[str, Any]) -> None:
    path = run_dir / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config[group] = config[group] | values
    path.write_text(yaml.safe_dump(config))
