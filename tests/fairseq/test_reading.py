"""Checkpoint files made to do harm are refused: nothing in them runs, and they take little memory."""

import argparse
import io
import os
import pickle
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from app.errors import CheckpointError
from app.fairseq.reading import read

WEIGHTS = {"decoder.embed_tokens.weight": torch.zeros(4, 2)}


class Calls:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: Any, *args: Any):
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def touch(canary: Path) -> Calls:
    return Calls(os.system, f"touch {canary}")


def with_torch(path: Path, canary: Path) -> None:
    torch.save({"model": WEIGHTS, "args": touch(canary)}, path)


def with_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps({"model": WEIGHTS, "args": touch(canary)}, protocol=2))


def with_getattr_chain(path: Path, canary: Path) -> None:
    chain = Calls(getattr, Calls(__import__, "os"), "system")
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(arch=chain, run=touch(canary))}, path)


def with_eval(path: Path, canary: Path) -> None:
    torch.save({"model": WEIGHTS, "cfg": Calls(eval, f"open({str(canary)!r}, 'w')")}, path)


def as_old_tar(path: Path, canary: Path) -> None:
    content = pickle.dumps(touch(canary), protocol=2)
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def as_zip_bomb(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + b"0" * (1 << 28))
        file.writestr("archive/version", "3\n")


def in_the_older_layout(path: Path, canary: Path) -> None:
    content = {"model": WEIGHTS, "args": touch(canary)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def with_a_large_number(path: Path, canary: Path) -> None:
    torch.save({"model": WEIGHTS, "args": {"bytes": Calls(bytearray, 1 << 32)}}, path)


def with_a_large_tensor(path: Path, canary: Path) -> None:
    torch.save({"model": WEIGHTS, "args": {"tensor": Calls(torch.Tensor, 1 << 30)}}, path)


def with_a_tensor_of_nothing(path: Path, canary: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1).expand(1 << 30)}, "args": {}}, path)


def with_options_that_unfold(path: Path, canary: Path) -> None:
    options: dict[str, Any] = {"arch": "transformer"}
    for _ in range(40):
        options = {"a": options, "b": options}
    torch.save({"model": WEIGHTS, "args": options}, path)


EXPLOITS = [
    *(with_torch, with_pickle, with_getattr_chain, with_eval, in_the_older_layout, as_old_tar, as_zip_bomb),
    *(with_a_large_number, with_a_large_tensor, with_a_tensor_of_nothing, with_options_that_unfold),
]


@pytest.mark.parametrize("make", EXPLOITS, ids=lambda f: f.__name__)
def test_exploits_are_refused(make: Any, tmp_path: Path) -> None:
    path, canary = tmp_path / "model.pt", tmp_path / "canary"
    make(path, canary)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="refused"):
        read(path)
    assert not canary.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_the_command_ends_with_code_4(tmp_path: Path) -> None:
    with_torch(tmp_path / "model.pt", tmp_path / "canary")
    (tmp_path / "bin").mkdir()
    places = [f"checkpoint={tmp_path / 'model.pt'}", f"data={tmp_path / 'bin'}", f"output={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "app.import_fairseq", *places]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (4, False)
    assert "model.pt: refused, it asks for posix.system, which is not on the list" in ended.stderr
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "run").exists()


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    torch.save({"weights": WEIGHTS}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="is no checkpoint of fairseq's"):
        read(tmp_path / "other.pt")
    torch.save({"model": WEIGHTS}, tmp_path / "bare.pt")
    with pytest.raises(CheckpointError, match="has neither cfg nor args"):
        read(tmp_path / "bare.pt")
    (tmp_path / "text.pt").write_text("nothing of the sort")
    with pytest.raises(CheckpointError, match="refused"):
        read(tmp_path / "text.pt")


def test_every_layout_is_read(tmp_path: Path) -> None:
    options = {"arch": "transformer", "dropout": 0.1}
    cfg = OmegaConf.create({"model": {"_name": "transformer", "dropout": 0.1}, "task": {"_name": "translation"}})
    torch.save({"model": WEIGHTS, "cfg": cfg}, tmp_path / "cfg.pt")
    old = {"model": WEIGHTS, "args": argparse.Namespace(**options)}
    torch.save(old, tmp_path / "args.pt", _use_new_zipfile_serialization=False)
    for name in ("cfg.pt", "args.pt"):
        found = read(tmp_path / name)
        assert found.architecture == "transformer"
        assert found.options["model"]["dropout"] == 0.1
        assert found.options["task"]["_name"] == "translation"
        assert (found.optimizer, found.history) == (None, {})
