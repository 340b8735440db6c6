"""The process group of a run, and the end of a process that had one."""

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from app.errors import UserError


@contextmanager
def process_group(backend: str, timeout: timedelta) -> Iterator[None]:
    """Inside, there is one, by what the environment says (`env://`)."""
    dist.init_process_group(backend, timeout=timeout)
    ending = Ending()
    atexit.register(ending)  # now: what is registered later, such as a tracker's last words, is called before it
    try:
        yield
    except BaseException as error:  # and no word to the group: an exchange may be under way, which others never join
        ending.exit_code = exit_code_of(error)
        raise
    dist.destroy_process_group()


class Ending:
    """Called when all is done and told: ends the process without taking the interpreter down.

    Gloo's threads stay while anybody holds the group (FSDP, default arguments of torch's own functions), and touch
    Python: a tensor that was exchanged is theirs for a moment after the exchange, and letting go of it takes the
    interpreter's lock. Where that comes while the interpreter goes, Python ends the thread in a place where C++ cannot:
    "terminate called without an active exception", SIGABRT, and a finished run has failed (pytorch issues 38228 and
    190489). A thread that waits for another rank would hold up the end of one that failed.
    """

    exit_code = 0

    def __call__(self) -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # its reader has gone, or it is closed
                stream.flush()
        os._exit(self.exit_code or int(hasattr(sys, "last_value")))  # or what went wrong after a good run


def exit_code_of(error: BaseException) -> int:
    """What a process that this error ends says."""
    if isinstance(error, UserError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1
