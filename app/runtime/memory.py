"""Keep freed memory for the next update, instead of giving it back to the kernel and faulting it in again."""

import ctypes
import os
import sys

KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "32"}  # oneDNN's, and torch's above it
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def give_back() -> None:
    """Freed memory goes back to the kernel after all, so that what is used next can be measured."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_buffers() -> bool:
    """Tell glibc's malloc to serve large blocks from a heap that it keeps. False where there is no such malloc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_THRESHOLD, 2**31 - 1), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26))
    return all([mallopt(name, value) for name, value in settings])


def keep_few_kernels() -> None:
    """Have products on the CPU remember the newest shapes only, unless the environment says how many.

    For each shape they keep compiled code and buffers, a third of a MiB and more. Training has new shapes in every
    batch, a search for every number of live rows: with the usual 1,024 of each cache, memory grows by GiB, and nothing
    is gained by it, since layers and successive steps have the same shapes. To be called before the first product.
    """
    for name, capacity in KERNEL_CACHES.items():
        os.environ.setdefault(name, capacity)
