"""How near training comes to what the machine can do: its matrix products beside the fastest ones (MFU)."""

import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from app.interfaces import Loss

aten = torch.ops.aten
PRODUCTS = {aten.mm, aten.addmm, aten.convolution, aten.convolution_backward}  # of weights; attention's are `bmm`
BATCHES = 8  # that are counted, for the mean
SECONDS = 0.3  # of measuring products
LARGEST = 8192  # rows of such a product at most


class Utilization:
    """Model FLOPs utilization (Chowdhery et al., 2022, app. B): operations of products a second, over the peak.

    The operations are those of products with weights, forward and backward, as torch runs them in the first batches:
    about 6 a parameter and token. Padding does not count. The peak is what a large product of the same dtype reaches on
    this machine, measured once and kept in `cache_dir/peaks.json`; without a `cache_dir` nothing is known. Nothing is
    known either of recurrent layers that run in one kernel.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None, cache_dir: Path | None = None):
        self.device, self.dtype, self.cache_dir = device, dtype or torch.float32, cache_dir
        self.operations, self.tokens, self.num_counted = 0.0, 0.0, 0
        self.peak: float | None = None

    def counted(self, step: Callable[[], list[Loss]]) -> list[Loss]:
        """What `step` returns; its products are counted while that is still wanted."""
        if self.cache_dir is None or self.num_counted == BATCHES:
            return step()
        with ProductCount() as count:
            losses = step()
        self.num_counted += 1
        self.operations += count.operations
        self.tokens += sum(float(loss.logs.get("ntokens", 0)) for loss in losses)
        return losses

    def share(self, tokens_per_second: float, padding: float, num_devices: int) -> dict[str, float]:
        """{"mfu": 0..1} of these target tokens a second on all devices; empty where it cannot be known."""
        if self.cache_dir is None or not self.tokens or self.operations != self.operations:
            return {}
        if self.peak is None:
            self.peak = peak(self.device, self.dtype, self.cache_dir)
        operations = self.operations / self.tokens * (1 - padding)
        return {"mfu": operations * tokens_per_second / num_devices / self.peak}


class ProductCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of products with weights that run inside; not a number where there are unknown ones."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in PRODUCTS:
            self.operations += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif "rnn" in packet.__name__:
            self.operations = float("nan")
        return out


def peak(device: torch.device, dtype: torch.dtype, cache_dir: Path) -> float:
    """Operations a second that large products reach here; measured where `cache_dir` does not know it."""
    path = cache_dir / "peaks.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    known = known if isinstance(known, dict) else {}
    name = f"{processor(device)}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}"
    if name not in known:
        known[name] = measured_peak(device, dtype)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
            temporary.replace(path)
        except OSError:
            pass  # the next run measures again
    return float(known[name])


def processor(device: torch.device) -> str:
    """What computes, with the threads that it has for one product."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The best of many square products, which grow until one takes 10 ms. Takes less than half a second on a CPU."""
    generator = torch.Generator(device).manual_seed(1)  # training's own draws stay what they are
    size, best, started = 512, 0.0, 0.0
    while not started or time.perf_counter() - started < SECONDS:
        a = torch.rand(size, size, device=device, generator=generator).to(dtype)
        out = a @ a
        started = started or time.perf_counter()
        seconds = min(timed(partial(torch.mm, a, a, out=out), device) for _ in range(3))
        best = max(best, 2 * size**3 / seconds)
        if seconds < 0.01:
            size = min(2 * size, LARGEST)
    return best


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that it takes."""
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started
