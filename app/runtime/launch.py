"""Starts the ranks of a run on this machine, watches over them, and ends them together."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from app.errors import RankError
from app.runtime.signals import CAUGHT

logger = logging.getLogger(__name__)

GRACE = 2.0  # seconds that ranks have to end by themselves when one has failed


def launch(function: Callable[..., float | None], number: int, *args: Any) -> float | None:
    """`function(*args)` in `number` new processes, with torchrun's environment; returns what rank 0 returns.

    0 processes are one a GPU, and one where there is none.

    Signals are handed on to the ranks, which save and end. When a rank fails the others are ended, and this process
    exits with its code: the rank has told why. Raises RankError for a rank that a signal killed.
    """
    number = number or torch.cuda.device_count() or 1
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    result = multiprocessing.get_context("spawn").Array("d", [0.0, 0.0])  # whether there is one, and which
    context: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        _rank, (number, store.port, result, function, args), number, join=False
    )
    logger.info("%d processes: %s", number, ", ".join(str(process.pid) for process in context.processes))
    with _handing_on(context):
        try:
            while not context.join(timeout=0.2, grace_period=GRACE):
                pass
        except ProcessExitedException as error:
            if error.exit_code > 0:
                raise SystemExit(error.exit_code) from None
            name = signal.Signals(-error.exit_code).name
            advice = "out of memory?" if name == "SIGKILL" else "see above"
            raise RankError(
                f"rank {error.error_index} (process {error.error_pid}) was ended by {name} ({advice}); "
                "the same command goes on from the last checkpoint"
            ) from None
    return result[1] if result[0] else None


def _rank(index: int, number: int, port: int, result: Any, function: Callable[..., float | None], args: Any) -> None:
    """One rank's process."""
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the launcher holds the store: rank 0 must not open another
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // number))
    value = function(*args)
    if index == 0 and value is not None:
        result[:] = [1.0, value]


@contextmanager
def _handing_on(context: ProcessContext) -> Iterator[None]:
    """Signals to this process go to all ranks."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        for process in context.processes:
            if process is not None and process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, hand_on) for number in CAUGHT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
