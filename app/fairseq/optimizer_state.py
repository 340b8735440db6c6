"""The state of fairseq's optimizers as ours keep it: the next updates are those that fairseq would have made."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import CheckpointError
from app.fairseq.names import UNREAD, renamed, unread
from app.fairseq.reading import FairseqCheckpoint
from app.runtime.checkpoint import ties

Entry = dict[str, Any]


def counted(*names: str) -> Callable[[Entry, Entry], Entry]:
    """The same tensors; torch's own optimizers hold the number of steps as a tensor."""
    return lambda entry, group: {"step": torch.tensor(float(entry["step"])), **{name: entry[name] for name in names}}


def numbered(*names: str) -> Callable[[Entry, Entry], Entry]:
    """The same tensors, as many as there are; the number of steps is a number."""
    return lambda entry, group: {
        "step": int(entry["step"]),
        **{name: entry[name] for name in names if name in entry and entry[name] is not None},
    }


def without_rate(entry: Entry, group: Entry) -> Entry:
    """fairseq's buffer of `nag` is ours times minus the rate of the last step."""
    return {"momentum_buffer": entry["momentum_buffer"] / -group["lr_old"]}


def momentum(entry: Entry, group: Entry) -> Entry:
    return {"momentum_buffer": entry.get("momentum_buffer")}


STATES: dict[str, Callable[[Entry, Entry], Entry]] = {
    "adam": counted("exp_avg", "exp_avg_sq"),
    "adagrad": counted("sum"),
    "adadelta": counted("square_avg", "acc_delta"),
    "adamax": numbered("exp_avg", "exp_inf"),
    "adafactor": numbered("exp_avg", "exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"),
    "nag": without_rate,
    "sgd": momentum,
}


SMALLER = {"step", "exp_avg_sq_row", "exp_avg_sq_col"}  # what is not as large as the parameter


def state_by_name(checkpoint: FairseqCheckpoint, kind: str, family: str, model: nn.Module) -> dict[str, Entry]:
    """Our state of each parameter that fairseq has updated, by its name. Raises CheckpointError where they differ."""
    given = checkpoint.optimizer
    mend = "reset_optimizer=true takes the weights alone"
    if given is None or kind not in STATES:
        raise CheckpointError(f"{checkpoint.path}: the state of optimizer={kind} cannot be taken over; {mend}")
    names = trained_names(checkpoint.weights, family, model)  # fairseq's -> ours
    (group,) = given["param_groups"]
    state = {int(i): dict(entry) for i, entry in given["state"].items()}
    if len(names) > 1 and group["params"] == [0] and 0 in state:
        state = unflattened(state[0], [checkpoint.weights[name].shape for name in names])
    elif len(group["params"]) != len(names):
        fault = f"holds the state of {len(group['params'])} parameters where the model has {len(names)}"
        raise CheckpointError(f"{checkpoint.path}: {fault}; {mend}")
    own = dict(model.named_parameters())
    ours = list(names.values())
    kept = {ours[i]: STATES[kind](entry, group) for i, entry in state.items() if not unread(ours[i], family, own)}
    if strangers := sorted(kept.keys() - own.keys()):
        raise CheckpointError(f"{checkpoint.path}: holds the state of {strangers[0]}, which is not here; {mend}")
    for name, entry in kept.items():
        for key, value in entry.items():
            if isinstance(value, Tensor) and key not in SMALLER and value.shape != own[name].shape:
                fault = f"{key} of {name} is {list(value.shape)} instead of {list(own[name].shape)}"
                raise CheckpointError(f"{checkpoint.path}: {fault}; {mend}")
    return kept


def trained_names(weights: Mapping[str, Tensor], family: str, model: nn.Module) -> dict[str, str]:
    """fairseq's parameters in the order of its optimizer, that of its modules -> their names here.

    A shared one is there once, under the first of fairseq's names.
    """
    of = {name: first for first, others in ties(model.state_dict()).items() for name in others}
    names: dict[str, str] = {}
    for name in weights:
        here = of.get(renamed(name, family), renamed(name, family))
        if not name.endswith(UNREAD) and here not in names.values():
            names[name] = here
    return names


def unflattened(entry: Entry, sizes: list[torch.Size]) -> dict[int, Entry]:
    """fp16 runs of fairseq keep all parameters as one row, one after another."""
    total = sum(size.numel() for size in sizes)
    parts: dict[int, Entry] = {i: {} for i in range(len(sizes))}
    for key, value in entry.items():
        is_row = isinstance(value, Tensor) and value.numel() == total
        shares = value.flatten().split([size.numel() for size in sizes]) if is_row else [value] * len(sizes)
        for i, (share, size) in enumerate(zip(shares, sizes, strict=True)):
            parts[i][key] = share.view(size) if is_row else share
    return parts
