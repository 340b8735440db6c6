"""Signals ask a run to stop; it does so at the end of its update, when its state can be saved."""

import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
SAVED = "stopped by a signal, state saved; the same command goes on"
ECHO = 1.0  # seconds in which a launcher and a scheduler, or a terminal, may have sent the same signal


class StopSignals:
    """Inside `with`, `received` is the number of the first signal that came, or None.

    The same one again ends the process, but for SIGUSR2, which schedulers repeat, and which SIGTERM may follow. One of
    several workers (`has_launcher`) takes what comes within a second for an echo: it is signalled by more than one.

    A handler that was there before (submitit's, for SIGUSR2) is called by `pass_on`, once the state is saved.
    """

    def __init__(self, has_launcher: bool = False) -> None:
        self.received: int | None = None
        self._echoes_until = 0.0
        self._echo = ECHO if has_launcher else 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in CAUGHT:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == self.received and number != signal.SIGUSR2 and time.monotonic() > self._echoes_until:
            os._exit(128 + number)
        if self.received is None:
            self.received, self._echoes_until = number, time.monotonic() + self._echo

    def pass_on(self, number: int, is_first: bool = True) -> None:
        """Call the handler that was there before SIGUSR2, if it is a function; only the first of several workers does.

        It has the job queued again, which the other workers must not return from: they leave by SystemExit.
        """
        handler = self._before.get(number)
        if not callable(handler) or number != signal.SIGUSR2:
            return
        if not is_first:
            raise SystemExit(0)
        handler(number, None)
