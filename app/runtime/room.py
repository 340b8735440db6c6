"""Whether a training step fits into memory: tried on a GPU, and measured on a CPU, where too much is never refused.

A GPU's allocator says when memory ends. Linux grants a process more than there is and later ends it, so that on a CPU a
step is tried only where what smaller ones took lets it fit.
"""

import gc
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from app.errors import ConfigError, OutOfMemory
from app.runtime.memory import give_back
from app.runtime.out_of_memory import is_out_of_memory

MARGIN = 0.1  # of a GPU's memory, left for what other batches need beyond the one that is tried
MARGIN_CPU = 0.3  # of the memory that is free; other programs want some too
CONTAINER = Path("/sys/fs/cgroup")
LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


class GPU:
    """Steps are tried beside a block of memory that holds the room of what is not allocated yet."""

    most_tokens = 2**18

    def __init__(self, device: torch.device, reserve: int):
        self.device = device
        self.held = int(torch.cuda.get_device_properties(device).total_memory * MARGIN) + reserve  # bytes

    def fits(self, step: Callable[[], object], size: int) -> bool:
        def step_beside() -> None:
            _held = torch.empty(self.held, dtype=torch.uint8, device=self.device)
            step()
            torch.cuda.synchronize(self.device)

        gc.collect()
        torch.cuda.empty_cache()
        return _goes(step_beside)


class CPU:
    """Steps are tried while their size, by what the last one took for its own, stays within the memory that is free.

    `share` processes divide the memory among them. Raises ConfigError where the system does not tell how much there is.
    """

    most_tokens = 2**13  # more makes a step longer and nothing faster

    def __init__(self, reserve: int, share: int):
        gc.collect()
        give_back()
        self.budget = int(free_memory() * (1 - MARGIN_CPU)) // share - reserve  # bytes
        self.before, self.per_size = _of_process("VmRSS"), 0.0
        with suppress(OSError):  # where an older, higher peak stays, there seems less room, which is safe
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now

    def fits(self, step: Callable[[], object], size: int) -> bool:
        if self.per_size * size > self.budget or not _goes(step):
            return False
        used = max(0, _of_process("VmHWM") - self.before)
        self.per_size = used / size
        return used <= self.budget


def _goes(step: Callable[[], object]) -> bool:
    """Whether the step runs without using up the memory."""
    try:
        step()
    except OutOfMemory:
        return False
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def room_on(device: torch.device, reserve: int, share: int) -> GPU | CPU:
    """`reserve`: bytes that training will need beside its steps; `share`: processes that divide a CPU's memory."""
    return GPU(device, reserve) if device.type == "cuda" else CPU(reserve, share)


def free_memory() -> int:
    """Bytes that programs may still have, within the limit of this process's container."""
    free = _number(Path("/proc/meminfo"), "MemAvailable")
    for limit, used in LIMITS:
        try:
            most, now = (int((CONTAINER / name).read_text()) for name in (limit, used))
        except (OSError, ValueError):  # no such file, or no limit: "max"
            continue
        free = min(free, max(0, most - now))
    return free


def _of_process(name: str) -> int:
    return _number(Path("/proc/self/status"), name)


def _number(path: Path, name: str) -> int:
    """Bytes, from a line such as `VmRSS:  2212 kB`."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        raise ConfigError(
            ["batching.max_tokens=auto: this system does not tell how much memory is free; give a number"]
        )
    return int(found[1]) * 1024
