"""Starts the ranks of a run on this machine, watches over them, and ends them together.

Not torch's elastic agent (`elastic_launch`), which was tried in its place: it ends at once on SIGUSR2, which schedulers
send before they take a machine back, with nothing saved; waits 30 seconds for a frozen rank before it is killed, where
GRACE is 2; and puts a traceback of its own behind the one line that says why a rank failed. A frozen rank took 46 s to
end a run with it. Started by torchrun, a run has that agent, and these limits.
"""

import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from app.errors import RankError, Stopped, UserError
from app.runtime.signals import CAUGHT, SAVED

logger = logging.getLogger(__name__)

GRACE = 2.0  # seconds that ranks have to end by themselves when one has failed


def launch(function: Callable[..., float | None], number: int, *args: Any) -> float | None:
    """`function(*args)` in `number` new processes, with torchrun's environment; returns what rank 0 returns.

    0 processes are one a GPU, and one where there is none.

    Signals are handed on to the ranks, which save and end; a handler that was there for SIGUSR2 (submitit's) is called
    after that. When a rank fails the others are ended. Raises Stopped where they ended for a signal, and RankError with
    the code of the rank that failed first, which has told why; or that says by what signal it was killed.
    """
    requeue = signal.getsignal(signal.SIGUSR2)
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
                code = first_code([process.exitcode for process in context.processes], error.exit_code)
                if code == 128 + signal.SIGUSR2 and callable(requeue):
                    requeue(signal.SIGUSR2, None)
                raise end_of(code) from None
            name = signal.Signals(-error.exit_code).name
            advice = "out of memory?" if name == "SIGKILL" else "see above"
            raise RankError(
                f"rank {error.error_index} (process {error.error_pid}) was ended by {name} ({advice}); "
                "the same command goes on from the last checkpoint"
            ) from None
    return result[1] if result[0] else None


def first_code(codes: Iterable[int | None], found: int) -> int:
    """The exit code of the rank that failed first, of all ranks' and that of the one that was `found` to have failed.

    The others fail because it has gone, which is no reason, and may be gone before it.
    """
    reasons = (code for code in codes if code is not None and 0 < code != RankError.exit_code)
    return next(reasons, RankError.exit_code) if found == RankError.exit_code else found


def end_of(code: int) -> UserError:
    """What ranks that ended with an exit code are to the command that started them."""
    if code - 128 in CAUGHT:
        return Stopped(SAVED, code - 128)
    error = RankError(f"a rank ended the run with exit code {code}; its message stands above")
    error.exit_code = code
    return error


def _rank(index: int, number: int, port: int, result: Any, function: Callable[..., float | None], args: Any) -> None:
    """One rank's process."""
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the launcher holds the store: rank 0 must not open another
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // number))
    try:
        value = function(*args)
    except Exception:  # here, since torch's launcher may hear of another rank first, and tells of one only
        traceback.print_exc()
        raise SystemExit(1) from None
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
