"""A `.pt` file of fairseq's, read without running anything that stands in it.

Such files are pickles, which can call any function. torch's restricted reader builds tensors and plain containers, and
beside them only the few classes of `ALLOWED`, which hold settings. There is no other way to read one here.
"""

import argparse
import collections
import pickletools
import re
import typing
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import omegaconf
import torch
from omegaconf import OmegaConf
from torch import Tensor

from app.errors import CheckpointError

ALLOWED: list[Any] = [
    argparse.Namespace,
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.AnyNode,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    typing.Any,
    dict,
    list,
    int,
    collections.defaultdict,
]

STORAGES = "Float Half BFloat16 Double Long Int Short Char Byte Bool"
KNOWN_NAMES = {
    *("argparse Namespace", "typing Any", "collections OrderedDict", "collections defaultdict"),
    *("omegaconf.dictconfig DictConfig", "omegaconf.listconfig ListConfig", "omegaconf.nodes AnyNode"),
    *("omegaconf.base ContainerMetadata", "omegaconf.base Metadata"),
    *(f"{module} {name}" for module in ("builtins", "__builtin__") for name in ("dict", "list", "int")),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_parameter"),
    *(f"torch {name}Storage" for name in STORAGES.split()),
}
OTHER_NAMINGS = {"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}  # what torch does not write
LARGEST = 1 << 26  # bytes of instructions; a large model's checkpoint has a hundredth
STREAMS = 4  # of the older layout: magic number, version, machine, content
MOST_OPTIONS = 100_000


@dataclass
class FairseqCheckpoint:
    """What a checkpoint of fairseq's says, in plain values."""

    path: Path
    options: dict[str, dict[str, Any]]  # section (model, task, optimizer, ...) -> option -> value
    weights: dict[str, Tensor]  # by fairseq's names, in the order of fairseq's modules
    optimizer: dict[str, Any] | None  # state_dict of the last optimizer; None where it was left out
    history: dict[str, Any]  # of the last optimizer: its name, num_updates, lr_scheduler_state
    extra: dict[str, Any]  # train_iterator, best, previous_training_time, ema

    @property
    def architecture(self) -> str:
        model = self.options["model"]
        return str(model.get("arch") or model.get("_name"))


def read(path: Path) -> FairseqCheckpoint:
    """Raises CheckpointError for a file that is none of fairseq's, or not safe to read."""
    content = load(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path}: is no checkpoint of fairseq's (no `model` in it); give a file such as model.pt")
    weights = {str(name): tensor for name, tensor in content["model"].items() if isinstance(tensor, Tensor)}
    for name, tensor in weights.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: refused, {name} says that it is larger than what is stored of it")
    history = content.get("optimizer_history") or [{}]
    return FairseqCheckpoint(
        path=path,
        options=sections(path, content),
        weights=weights,
        optimizer=content.get("last_optimizer_state"),
        history=dict(history[-1]),
        extra=dict(content.get("extra_state") or {}),
    )


def load(path: Path) -> Any:
    """The restricted reader's result. What is in the file is refused by name, and nothing of it is run."""
    refuse_compression(path)
    refuse_strangers(path)
    try:
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); copy it again") from None
    except Exception as error:  # whatever the reader says of a file that is damaged, or made to do harm
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise refusal(path, asked[1].split(".") if asked else []) from None


def refusal(path: Path, asked: Sequence[str]) -> CheckpointError:
    reason = f"it asks for {'.'.join(asked)}, which is not on the list of harmless classes" if asked else "not readable"
    return CheckpointError(f"{path}: refused, {reason}; give a file that fairseq saved")


def refuse_strangers(path: Path) -> None:
    """Look through the file's instructions, running none, for a name that no checkpoint of fairseq's has.

    torch's reader lets a few more pass than are needed here, and some of them (`bytearray`, `torch.Tensor`) make as
    large a thing as a number in the file says.
    """
    for code in pickled(path):
        try:
            for opcode, argument, _ in pickletools.genops(code):
                if opcode.name in OTHER_NAMINGS:
                    raise refusal(path, [])
                if opcode.name == "GLOBAL" and str(argument) not in KNOWN_NAMES:
                    raise refusal(path, str(argument).split())
        except ValueError:  # the restricted reader says what is wrong with it
            return


def pickled(path: Path) -> Iterator[Any]:
    """The streams of instructions in a file: one of the newer layout, those in turn at the start of the older."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            for entry in file.infolist():
                if entry.filename.endswith(".pkl"):
                    if entry.file_size > LARGEST:
                        raise CheckpointError(f"{path}: refused, its instructions alone have {entry.file_size} bytes")
                    yield file.read(entry)
        return
    with path.open("rb") as raw:
        for _ in range(STREAMS):
            yield raw


def refuse_compression(path: Path) -> None:
    """torch stores without compression: a file that unpacks to more than itself was made by someone else."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy it again") from None
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path}: refused, it unpacks to more than it is, which no checkpoint of torch's does")


def sections(path: Path, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options by section. An old checkpoint has one `args` with all of them, which then is every section."""
    cfg, args = content.get("cfg"), content.get("args")
    if cfg is not None:
        found = {str(name): plain(section) for name, section in dict(plain(cfg)).items()}
        return {name: section for name, section in found.items() if isinstance(section, dict)}
    if args is not None:
        options = dict(plain(args))
        names = ("model", "task", "criterion", "optimizer", "lr_scheduler", "optimization", "dataset", "checkpoint")
        chosen = {"task": "translation", "criterion": "cross_entropy", "lr_scheduler": "fixed", **options}
        return {name: {**options, "_name": chosen.get(name)} for name in (*names, "common", "ema")}
    raise CheckpointError(f"{path}: has neither cfg nor args, which say what model it is of; give another file")


def plain(value: Any, left: list[int] | None = None) -> Any:
    """Namespaces and OmegaConf's containers as dicts and lists. CheckpointError for what unfolds without end."""
    left = [MOST_OPTIONS] if left is None else left
    left[0] -= 1
    if left[0] < 0:
        raise CheckpointError(f"refused, it has more than {MOST_OPTIONS} options")
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {name: plain(child, left) for name, child in value.items()}
    return value
