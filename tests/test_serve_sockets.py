"""What `app.serve` answers to bytes on a socket that no well-behaved client sends."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

import uvicorn

from app.serving.application import application
from app.serving.protocol import punctual
from tests.test_serve import Shouting, config

HEAD = b"POST /translate HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
TIMEOUT = 0.5


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server of this process, as `app.serve` runs it, that waits half a second for a request."""
    model = Shouting()
    served = application(config(timeout=TIMEOUT), model, model.generate, 3)
    server = uvicorn.Server(uvicorn.Config(served, port=0, http=punctual(TIMEOUT), log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status and body; (0, "") where the connection was closed without a word."""
    data = b""
    connection.settimeout(30)
    while b"\r\n\r\n" not in data and (more := connection.recv(1 << 16)):
        data += more
    if not data:
        return 0, ""
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().splitlines() if b"content-length" in line), 1 << 30
    )
    while len(body) < length and (more := connection.recv(1 << 16)):
        body += more
    return int(head.split()[1]), body.decode()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def trickle(connection: socket.socket, data: bytes, stop: threading.Event) -> None:
    """The bytes, one every twentieth of a second, for as long as the other side takes them."""
    for place in range(len(data)):
        try:
            connection.send(data[place : place + 1])
        except OSError:
            return
        if stop.wait(0.05):
            return


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", HEAD + b"X-Slow: " + b"a" * 2000),
        (HEAD + b"Content-Length: 400\r\n\r\n", b'{"lines": [' + b" " * 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n     \r\n" * 100),
        (HEAD + b"Content-Length: 400\r\n\r\n{", b""),
        (b"GET / HTTP/1.1\r\n", b""),
    ],
)
def test_slow_requests_are_told_and_closed(port: int, at_once: bytes, slowly: bytes) -> None:
    stop = threading.Event()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.send(at_once)
        sender = threading.Thread(target=trickle, args=(connection, slowly, stop))
        sender.start()
        try:
            status, body = answer(connection)
            assert (status, json.loads(body)) == (408, {"error": "the request did not arrive in time"})
            assert is_closed(connection)
        finally:
            stop.set()
            sender.join()


def test_a_second_request_of_a_connection_may_not_dawdle_either(port: int) -> None:
    body = b'{"lines": ["a"]}'
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer(connection)[0] == 200
        connection.send(HEAD)
        assert answer(connection)[0] == 408
        assert is_closed(connection)


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert answer(connection) == (0, "")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400),  # TLS
        (b"translate this\r\n\r\n", 400),
        (HEAD + b"Content-Length: many\r\n\r\n", 400),
        (HEAD + b"X-Long: " + b"a" * 20_000, 400),
        (HEAD + b"Content-Length: 600\r\n\r\n" + b"a" * 600, 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n258\r\n" + b"a" * 600, 413),
        (HEAD + b"Content-Length: 4\r\n\r\n\xff\xfe{}", 400),
        (b"PUT /translate HTTP/1.1\r\nHost: here\r\n\r\n", 405),
    ],
)
def test_malformed_and_huge_requests_are_refused(port: int, data: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.send(data)
        found, body = answer(connection)
        assert found == status
        assert len(body.splitlines()) == 1


def test_after_all_that_the_others_are_served(port: int) -> None:
    body = b'{"lines": ["a"]}'
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for each in slow:
        each.send(HEAD)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer(connection)[0] == 200
    for each in slow:
        assert answer(each)[0] == 408
        each.close()
