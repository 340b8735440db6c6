"""Checkpoints: complete or absent, verified before use, and without anything that could run code.

A checkpoint is a directory `checkpoints/update_00001200` of safetensors and JSON files. It is written under another
name, its manifest (sizes and sha256 of every file) last, and gets its name by one rename, so that a kill at any moment
leaves either the whole checkpoint or none.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from app.config import CheckpointConfig
from app.errors import CheckpointError, StorageError
from app.runtime.state import pack, unpack

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
DIRECTORY = "checkpoints"


@dataclass
class Checkpoint:
    """A checkpoint on disk, and what its manifest says."""

    path: Path
    num_updates: int
    metrics: dict[str, float]  # of the validation it was saved after; empty without one
    files: dict[str, dict[str, Any]]  # name -> size, sha256

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Read the manifest. Raises CheckpointError where it is missing or unreadable."""
        try:
            if (path / MANIFEST).is_symlink():
                raise ValueError("a link")
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            files = {str(name): dict(entry) for name, entry in manifest["files"].items()}
            for name, entry in files.items():
                if Path(name).name != name:
                    raise ValueError("a file name with a path")
                if not (type(entry["size"]) is int and entry["size"] >= 0 and isinstance(entry["sha256"], str)):
                    raise ValueError(f"a wrong size or sha256 of {name}")
            return cls(path, int(manifest["num_updates"]), dict(manifest["metrics"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            mend = "use another checkpoint"
            raise CheckpointError(f"{path / MANIFEST}: not a readable manifest ({error}); {mend}") from None

    def read(self, name: str) -> bytes:
        """A file's content, after its size and sha256 were compared with the manifest's. Links are not followed."""
        file, entry = self.path / name, self.files.get(name)
        if entry is None:
            raise CheckpointError(f"{file}: not in the manifest; use another checkpoint")
        try:
            found = file.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise CheckpointError(f"{file}: a link or no file at all; put the file itself there")
            with file.open("rb") as opened:
                content = opened.read(entry["size"]) if found.st_size == entry["size"] else b""
        except OSError as error:
            raise CheckpointError(f"{file}: {error.strerror}; use another checkpoint") from None
        if len(content) != entry["size"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise CheckpointError(f"{file}: damaged, its content is not what was saved; use another checkpoint")
        return content

    def tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return load(self.read(name))
        except SafetensorError as error:
            raise CheckpointError(f"{self.path / name}: not a safetensors file ({error})") from None

    def state(self) -> dict[str, Any]:
        """What `save` was given as `state`."""
        packed = json.loads(self.read("state.json"))
        state: dict[str, Any] = unpack(packed, self.tensors("state.safetensors"))
        return state

    def verify(self) -> None:
        for name in self.files:
            self.read(name)

    def load_model(self, model: nn.Module, weights: str = "model.safetensors") -> None:
        """Weights into `model`. Raises CheckpointError that lists what does not fit."""
        given, own = self.tensors(weights), model.state_dict()
        shared = {name: unique for unique, names in ties(own).items() for name in names}
        given |= {name: given[unique] for name, unique in shared.items() if name not in given and unique in given}
        faults = [f"missing {name}" for name in own if name not in given]
        faults += [f"unexpected {name}" for name in given if name not in own]
        faults += [
            f"{name} is {list(given[name].shape)} instead of {list(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ]
        if faults:
            more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
            raise CheckpointError(f"{self.path}: weights of another model: {'; '.join(faults[:6])}{more}")
        model.load_state_dict(given)

    @property
    def inference_weights(self) -> str:
        """The file that translates best: averaged weights where there are any."""
        return "averaged.safetensors" if "averaged.safetensors" in self.files else "model.safetensors"


def ties(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Names that share one tensor: the first of them -> the others."""
    first: dict[tuple[int, torch.Size], str] = {}
    shared: dict[str, list[str]] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and key in first:
            shared.setdefault(first[key], []).append(name)
        first.setdefault(key, name)
    return shared


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, cfg: CheckpointConfig, run_dir: Path):
        self.cfg = cfg
        self.directory = run_dir / DIRECTORY

    def save(
        self,
        num_updates: int,
        model: dict[str, Tensor],
        averaged: dict[str, Tensor] | None,
        state: dict[str, Any],
        metrics: dict[str, float],
    ) -> Checkpoint:
        """Write a checkpoint, then remove what need not be kept. Raises StorageError, older checkpoints untouched."""
        tensors: dict[str, Tensor] = {}
        packed = json.dumps(pack(state, tensors)).encode()
        contents = {"model.safetensors": _weights(model), "state.json": packed, "state.safetensors": _bytes(tensors)}
        if averaged is not None:
            contents["averaged.safetensors"] = _weights(averaged)
        path = self.directory / f"update_{num_updates:08d}"
        temporary = self.directory / f".{path.name}.tmp-{os.getpid()}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            temporary.mkdir()
            files = {name: _write(temporary / name, content) for name, content in contents.items()}
            manifest = {"format": 1, "num_updates": num_updates, "metrics": metrics, "files": files}
            _write(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
            _fsync(temporary)
            if path.exists():
                _move_aside(path, "replaced")
            os.replace(temporary, path)
            _fsync(self.directory)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            mend = "free space there or set run_dir elsewhere"
            raise StorageError(f"{path}: {error.strerror or error}; {mend}") from None
        self._remove_old()
        self._remove_leftovers()
        return Checkpoint.open(path)

    def all(self) -> list[Checkpoint]:
        """Every checkpoint with a readable manifest, oldest first."""
        found = []
        for path in sorted(self.directory.glob("update_*")):
            try:
                found.append(Checkpoint.open(path))
            except CheckpointError as error:
                logger.warning("%s", error)
        return sorted(found, key=lambda checkpoint: checkpoint.num_updates)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are moved aside with a warning."""
        for checkpoint in reversed(self.all()):
            try:
                checkpoint.verify()
            except CheckpointError as error:
                logger.warning("%s; moved aside to %s", error, _move_aside(checkpoint.path, "damaged"))
            else:
                return checkpoint
        return None

    def best(self) -> list[Checkpoint]:
        """Those with the metric that `checkpoint.metric` names, best first."""
        having = [c for c in self.all() if math.isfinite(c.metrics.get(self.cfg.metric, math.nan))]
        sign = 1 if self.cfg.mode == "min" else -1
        return sorted(having, key=lambda c: (sign * c.metrics[self.cfg.metric], -c.num_updates))

    def _remove_old(self) -> None:
        keep = [*self.all()[-self.cfg.keep_last :], *self.best()[: self.cfg.keep_best]]
        kept = {checkpoint.path for checkpoint in keep}
        for checkpoint in self.all():
            if checkpoint.path not in kept:
                _remove(checkpoint.path)

    def _remove_leftovers(self) -> None:
        for pattern in (".update_*.tmp-*", "replaced-update_*"):
            for path in self.directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def find(path: Path, metric: str, mode: str) -> Checkpoint:
    """The checkpoint that a user means: a checkpoint's directory, or a run's, whose best one (else newest) is taken."""
    if (path / MANIFEST).is_file():
        return Checkpoint.open(path)
    cfg = CheckpointConfig(0, 1, 1, metric, mode, resume=True, finetune_from=None)
    checkpoints = Checkpoints(cfg, path)
    found = checkpoints.best()[:1] or checkpoints.all()[-1:]
    if not found:
        raise CheckpointError(f"{path}: holds no checkpoint; give the directory of a run (with {DIRECTORY}/ in it)")
    return found[0]


def _weights(state: dict[str, Tensor]) -> bytes:
    tied = {name for names in ties(state).values() for name in names}
    return _bytes({name: tensor for name, tensor in state.items() if name not in tied})


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _write(path: Path, content: bytes) -> dict[str, Any]:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _fsync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _move_aside(path: Path, why: str) -> Path:
    numbers: Iterable[int] = range(1, 1000)
    aside = next(p for p in (path.with_name(f"{why}-{path.name}-{i}") for i in numbers) if not p.exists())
    return path.rename(aside)


def _remove(path: Path) -> None:
    (path / MANIFEST).unlink(missing_ok=True)  # first, so that a half-removed checkpoint is none
    shutil.rmtree(path, ignore_errors=True)
