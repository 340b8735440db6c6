"""Checkpoints: complete or absent, verified before use, and without anything that could run code.

A checkpoint is a directory `checkpoints/update_00001200` of safetensors and JSON files. It is written under another
name, its manifest (sizes and sha256 of every file) last, and gets its name by one rename, so that a kill at any moment
leaves either the whole checkpoint or none.
"""

import hashlib
import json
import logging
import math
import stat
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
from app.runtime.storage import (
    check_room,
    described,
    move_aside,
    put_back,
    remove_directory,
    remove_leftovers,
    write_directory,
)

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
DIRECTORY = "checkpoints"
PATTERN = "update_*"


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

    def load_model(self, model: nn.Module, weights: str = "model.safetensors", partial: bool = False) -> list[str]:
        """Weights into `model`. Returns what did not fit, a line each; it is a CheckpointError unless `partial`.

        None that fits is a CheckpointError in any case.
        """
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
        fitting = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
        if faults and (not partial or not fitting):
            more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
            raise CheckpointError(f"{self.path}: weights of another model: {'; '.join(faults[:6])}{more}")
        model.load_state_dict(fitting, strict=False)
        return faults

    @property
    def inference_weights(self) -> str:
        """The file that translates best: averaged weights where there are any."""
        return "averaged.safetensors" if "averaged.safetensors" in self.files else "model.safetensors"


@dataclass
class Snapshot:
    """What a checkpoint will hold, before it is written."""

    num_updates: int
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    state: Any  # of JSON values
    tensors: dict[str, Tensor]  # of the state
    metrics: dict[str, float]

    @classmethod
    def take(
        cls,
        num_updates: int,
        model: dict[str, Tensor],
        averaged: dict[str, Tensor] | None,
        state: dict[str, Any],
        metrics: dict[str, float],
        copy: bool,
    ) -> "Snapshot":
        """With `copy` in memory of its own, so that training may go on; else valid until the next update."""
        tensors: dict[str, Tensor] = {}
        packed = pack(state, tensors)
        weights, average = (None if held is None else _on_cpu(_untied(held), copy) for held in (model, averaged))
        return cls(num_updates, weights or {}, average, packed, _on_cpu(tensors, copy=True), dict(metrics))

    def contents(self) -> dict[str, bytes]:
        """The files of the checkpoint but its manifest."""
        files = {"model.safetensors": save(self.weights), "state.json": json.dumps(self.state).encode()}
        files["state.safetensors"] = save(self.tensors)
        return files if self.averaged is None else files | {"averaged.safetensors": save(self.averaged)}


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
        return self.write(Snapshot.take(num_updates, model, averaged, state, metrics, copy=False))

    def write(self, snapshot: Snapshot, spare: int = 1) -> Checkpoint:
        """`save` of what was taken before; the disk must have `spare` times the room that it needs."""
        path = self.directory / f"update_{snapshot.num_updates:08d}"
        contents = snapshot.contents()
        files = {name: described(content) for name, content in contents.items()}
        manifest = {"format": 1, "num_updates": snapshot.num_updates, "metrics": snapshot.metrics, "files": files}
        try:
            remove_leftovers(self.directory, PATTERN)
            check_room(self.directory, spare * sum(map(len, contents.values())))
            write_directory(path, contents, (MANIFEST, json.dumps(manifest, indent=1).encode()))
            self._remove_old(path)
            remove_leftovers(self.directory, PATTERN)
        except OSError as error:
            mend = "free space there or set run_dir elsewhere"
            raise StorageError(f"{path}: {error.strerror or error}; {mend}") from None
        return Checkpoint.open(path)

    def all(self) -> list[Checkpoint]:
        """Every checkpoint with a readable manifest, oldest first."""
        put_back(self.directory, PATTERN)
        return checkpoints_in(self.directory)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are moved aside with a warning."""
        put_back(self.directory, PATTERN)
        for path in sorted(self.directory.glob(PATTERN), reverse=True):
            try:
                checkpoint = Checkpoint.open(path)
                checkpoint.verify()
            except CheckpointError as error:
                logger.warning("%s; moved aside to %s", error, move_aside(path, "damaged"))
            else:
                return checkpoint
        return None

    def best(self) -> list[Checkpoint]:
        """Those with the metric that `checkpoint.metric` names, best first."""
        return best_of(self.all(), self.cfg.metric, self.cfg.mode)

    def _remove_old(self, written: Path) -> None:
        there, pattern = self.all(), self.cfg.keep_interval_updates_pattern
        keep = [*there[-self.cfg.keep_last :], *best_of(there, self.cfg.metric, self.cfg.mode)[: self.cfg.keep_best]]
        kept = {checkpoint.path for checkpoint in keep} | {written}
        for checkpoint in there:
            if checkpoint.path not in kept and not (pattern and checkpoint.num_updates % pattern == 0):
                remove_directory(checkpoint.path)


def checkpoints_in(directory: Path) -> list[Checkpoint]:
    """Every checkpoint with a readable manifest, oldest first."""
    found = []
    for path in directory.glob(PATTERN):
        try:
            found.append(Checkpoint.open(path))
        except CheckpointError as error:
            logger.warning("%s", error)
    return sorted(found, key=lambda checkpoint: checkpoint.num_updates)


def best_of(checkpoints: list[Checkpoint], metric: str, mode: str) -> list[Checkpoint]:
    """Those that have the metric, best first; of equals the newest first."""
    having = [c for c in checkpoints if math.isfinite(c.metrics.get(metric, math.nan))]
    sign = 1 if mode == "min" else -1
    return sorted(having, key=lambda c: (sign * c.metrics[metric], -c.num_updates))


def find(path: Path, metric: str, mode: str) -> Checkpoint:
    """The checkpoint that a user means: a checkpoint's directory, or a run's, whose best one (else newest) is taken."""
    if (path / MANIFEST).is_file():
        return Checkpoint.open(path)
    there = checkpoints_in(path / DIRECTORY)
    found = best_of(there, metric, mode)[:1] or there[-1:]
    if not found:
        raise CheckpointError(f"{path}: holds no checkpoint; give the directory of a run (with {DIRECTORY}/ in it)")
    return found[0]


def _untied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    tied = {name for names in ties(state).values() for name in names}
    return {name: tensor for name, tensor in state.items() if name not in tied}


def _on_cpu(tensors: dict[str, Tensor], copy: bool) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=copy).contiguous() for name, tensor in tensors.items()}
