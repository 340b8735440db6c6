"""Connections that dawdle: uvicorn itself waits for a request's headers for ever."""

import asyncio
import json
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class PunctualProtocol(H11Protocol):
    """HTTP/1.1 in which a request must have arrived `timeout` seconds after it began, or after its connection did.

    Where its headers have not, it is answered with 408, or with nothing if nothing came. Its body is the application's
    to wait for, and to answer; whoever still sends one when as much time has passed again is cut off.
    """

    timeout: ClassVar[float]
    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.call_later(self.timeout, self.late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        arriving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if arriving and self.deadline is None:
            self.deadline = self.loop.call_later(self.timeout, self.late)
        elif not arriving:
            self.on_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_time()
        super().connection_lost(exc)

    def on_time(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def late(self) -> None:
        """Headers are overdue, or a body is: the application tells its sender so, if it has not yet."""
        if self.conn.their_state is h11.SEND_BODY:
            self.deadline = self.loop.call_later(self.timeout, self.transport.close)
            return
        if self.conn.trailing_data[0] and not self.transport.is_closing():
            self.transport.write(refusal(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time"))
        self.transport.close()


def punctual(timeout: float) -> type[PunctualProtocol]:
    """The protocol with this time limit, for uvicorn, which makes one object of it for each connection."""
    return type("Punctual", (PunctualProtocol,), {"timeout": timeout})


def refusal(status: HTTPStatus, fault: str) -> bytes:
    """A whole answer, in the form of the application's, after which the connection is closed."""
    body = json.dumps({"error": fault})
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", "content-type: application/json", "connection: close"]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", body]).encode()
