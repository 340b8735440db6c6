"""Faults on request: what the tests of `tests/faults` need to break a run at an exact place.

`FAULT=kill:update@7` kills the process at update 7. The variable lists `ACTION:POINT@NUMBER#RANK` with commas; without
`@NUMBER` every time, without `#RANK` on every worker. While it is unset, `reach` does nothing and costs nothing.

Points are named by the code that calls `reach`; one that passes no number is counted from 1 in each process. Actions:
`kill`, `stop`, `term`, `int` and `usr2` send this process a signal, `slow` sleeps for two seconds, `hang` for ten
minutes, `full` is a full disk. Every other word (`nan`, `inf`, `spike`, `oom`, `differ`) is handed to the caller, who
spoils what it holds.
"""

import errno
import os
import re
import signal
import time
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

from app.errors import ConfigError

SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "usr2": signal.SIGUSR2,
}
FACTORS = {"nan": float("nan"), "inf": float("inf"), "spike": 1e4}  # what a loss or gradient is multiplied by
FORM = re.compile(r"(\w+):([\w.]+)(?:@(\d+))?(?:#(\d+))?")

times: Counter[str] = Counter()  # how often a point that passes no number was reached


class Fault(NamedTuple):
    """One thing that FAULT asks for."""

    action: str
    point: str
    number: int | None  # which time, or which update; None: every time
    rank: int | None  # which worker; None: all


def parse(text: str) -> tuple[Fault, ...]:
    """The faults that FAULT lists. Raises ConfigError for what is not of the form."""
    faults = []
    for word in filter(None, text.split(",")):
        if (match := FORM.fullmatch(word)) is None:
            raise ConfigError([f"FAULT={word}: must be ACTION:POINT@NUMBER#RANK, such as kill:update@7; or unset it"])
        action, point, number, rank = match.groups()
        faults.append(Fault(action, point, int(number) if number else None, int(rank) if rank else None))
    return tuple(faults)


@cache
def asked() -> tuple[Fault, ...]:
    """What the environment of this process asks for."""
    return parse(os.environ.get("FAULT", ""))


def reach(point: str, number: int | None = None) -> str | None:
    """Called where a fault may be wanted. Returns an action that is the caller's to do, else None."""
    if not asked():
        return None
    if number is None:
        times[point] += 1
        number = times[point]
    rank = int(os.environ.get("RANK", "0"))
    for fault in asked():
        if fault.point == point and fault.number in (None, number) and fault.rank in (None, rank):
            return _do(fault.action)
    return None


def _do(action: str) -> str | None:
    if action in SIGNALS:
        os.kill(os.getpid(), SIGNALS[action])
    elif action in ("slow", "hang"):
        time.sleep(2 if action == "slow" else 600)
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        return action
    return None


def spoil(loss: Any, attempt: int) -> Any:
    """A criterion's loss in training, as faults at `loss`, `grad` (both numbered by updates, from 1) and `forward` ask.

    Those at `forward` are numbered by batches: `oom:forward@3`, the third that is learnt from does not fit into memory.
    """
    import torch

    if not torch.is_grad_enabled():
        return loss
    if (of_batch := reach("forward")) == "oom":
        raise torch.OutOfMemoryError("FAULT=oom:forward")
    in_gradient, in_loss = (FACTORS.get(reach(point, attempt + 1) or "", 1.0) for point in ("grad", "loss"))
    loss.value.register_hook(lambda grad: grad * in_gradient)
    return loss._replace(value=loss.value * in_loss * FACTORS.get(of_batch or "", 1.0))
