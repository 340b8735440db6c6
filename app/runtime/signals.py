"""Signals ask a run to stop; it does so at the end of its update, when its state can be saved."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopSignals:
    """Inside `with`, `received` is the number of the first signal that came, or None.

    The same one again ends the process, but for SIGUSR2, which schedulers repeat, and which SIGTERM may follow.

    A handler that was there before (submitit's, for SIGUSR2) is called by `pass_on`, once the state is saved.
    """

    def __init__(self) -> None:
        self.received: int | None = None
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
        if number == self.received and number != signal.SIGUSR2:
            os._exit(128 + number)
        self.received = self.received or number

    def pass_on(self) -> None:
        """Call the handler that was there before for the signal that came, if it is a function."""
        handler = self._before.get(self.received or 0)
        if callable(handler) and self.received == signal.SIGUSR2:
            handler(self.received, None)
