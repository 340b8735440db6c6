"""Nested state (dicts, lists, numbers, tensors) as one JSON value and named tensors, and back. No pickle."""

from typing import Any

from torch import Tensor

TENSOR, ITEMS = "__tensor__", "__items__"


def pack(state: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """`state` as JSON values; its tensors go into `tensors` under dotted names. Raises TypeError for anything else."""
    if isinstance(state, Tensor):
        tensors[name] = state
        return {TENSOR: name}
    if isinstance(state, dict):
        if all(isinstance(key, str) for key in state):
            return {key: pack(value, tensors, f"{name}.{key}".lstrip(".")) for key, value in state.items()}
        return {ITEMS: [[key, pack(value, tensors, f"{name}.{key}".lstrip("."))] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        return [pack(value, tensors, f"{name}.{i}".lstrip(".")) for i, value in enumerate(state)]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise TypeError(f"{name}: {type(state).__name__} cannot be saved; use tensors, numbers, strings, lists and dicts")


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """What `pack` was given; tuples come back as lists."""
    if isinstance(packed, dict):
        if TENSOR in packed:
            return tensors[packed[TENSOR]]
        if ITEMS in packed:
            return {key: unpack(value, tensors) for key, value in packed[ITEMS]}
        return {key: unpack(value, tensors) for key, value in packed.items()}
    if isinstance(packed, list):
        return [unpack(value, tensors) for value in packed]
    return packed
