"""The HTTP interface: `/translate`, `/health`, `/metrics`, and the page at `/`."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from app.errors import DataError
from app.interfaces import Generator, Translation
from app.lines import is_unicode
from app.roots import ServeConfig
from app.serving.batcher import Batcher, Full

log = logging.getLogger("serve")

PAGE = Path(__file__).with_name("page.html")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def application(
    cfg: ServeConfig, generator: Generator, translate: Callable[[list[str]], Any], max_nbest: int
) -> Starlette:
    """The ASGI application. `translate` gives the `max_nbest` best of a line; `generator` says which are too long."""
    server = Server(cfg, generator, Batcher(translate, cfg.max_batch_lines, cfg.max_queue_lines), max_nbest)
    routes = [
        Route("/", server.page),
        Route("/translate", server.timed, methods=["POST"]),
        Route("/health", server.health),
        Route("/metrics", server.metrics),
    ]
    return Starlette(routes=routes, lifespan=server.lifespan, exception_handlers={HTTPException: server.refuse})


class Server:
    """What the routes share: the limits, the batcher, the numbers."""

    def __init__(self, cfg: ServeConfig, generator: Generator, batcher: Batcher, max_nbest: int):
        self.cfg, self.generator, self.batcher, self.max_nbest = cfg, generator, batcher, max_nbest
        self.registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests to /translate by status", ["status"], registry=self.registry)
        self.seconds = Histogram("request_seconds", "From request to answer", registry=self.registry)
        sizes = Histogram(
            "batch_lines", "Lines translated together", buckets=[1, 2, 4, 8, 16, 32, 64, 128], registry=self.registry
        )
        batcher.observers.append(sizes.observe)
        queued = Gauge("queued_lines", "Lines that wait", registry=self.registry)
        queued.set_function(lambda: batcher.queued)

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def page(self, _: Request) -> Response:
        text = PAGE.read_text(encoding="utf-8").replace("MAX_NBEST", str(self.max_nbest))
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "queued_lines": self.batcher.queued})

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    async def refuse(self, _: Request, error: Exception) -> Response:
        """Every refusal is a JSON object with one line in `error`."""
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    async def timed(self, request: Request) -> Response:
        """`translate`, counted."""
        start, status = time.perf_counter(), 500
        try:
            response = await self.translate(request)
            status = response.status_code
            return response
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self.requests.labels(str(status)).inc()
            self.seconds.observe(time.perf_counter() - start)

    async def translate(self, request: Request) -> Response:
        """{"lines": [...], "nbest": N} -> {"translations": [the n best of each line]}."""
        cfg = self.cfg
        body = await within(cfg.timeout, self.body(request), 408, "the request did not arrive in time")
        lines, nbest = self.asked(body)
        if long := await asyncio.to_thread(self.too_long, lines):
            raise HTTPException(422, f"lines[{long[0]}]: longer than the model allows; split it")
        try:
            answer = self.batcher.submit(lines, cfg.timeout)
            found = await within(cfg.timeout, answer, 503, f"no answer within {cfg.timeout} seconds; try again later")
        except Full:
            fault = f"{cfg.max_queue_lines} lines are waiting already; try again later"
            raise HTTPException(429, fault, headers={"Retry-After": "1"}) from None
        except HTTPException:
            raise
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        except Exception:
            log.exception("a batch failed")
            raise HTTPException(500, "the translation failed; the server's log says why") from None
        return JSONResponse({"translations": [[shown(each) for each in best[:nbest]] for best in found]})

    def too_long(self, lines: list[str]) -> list[int]:
        return self.generator.too_long(lines) if self.cfg.long_lines == "error" else []

    async def body(self, request: Request) -> bytes:
        """The body, read no further than it may be long."""
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise HTTPException(415, "Content-Type must be application/json")
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self.cfg.max_body_bytes:
                    raise HTTPException(413, f"the body is longer than {self.cfg.max_body_bytes} bytes")
        except ClientDisconnect:
            raise HTTPException(400, "the request ended early") from None
        return bytes(body)

    def asked(self, body: bytes) -> tuple[list[str], int]:
        """The lines and how many translations of each; raises what is wrong with them as 400 or 422."""
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPException(400, "the body is not JSON") from None
        if not isinstance(asked, dict) or not {"lines"} <= asked.keys() <= {"lines", "nbest"}:
            raise HTTPException(422, 'give an object with "lines", and "nbest" if you like, and nothing else')
        lines, nbest = asked["lines"], asked.get("nbest", 1)
        if not isinstance(lines, list) or not all(isinstance(line, str) and "\n" not in line for line in lines):
            raise HTTPException(422, "lines: must be a list of texts without line breaks")
        if not all(map(is_unicode, lines)):
            raise HTTPException(422, "lines: half of a surrogate pair is no text")
        if not 1 <= len(lines) <= self.cfg.max_lines:
            raise HTTPException(422, f"lines: must be 1 to {self.cfg.max_lines}, not {len(lines)}")
        if not isinstance(nbest, int) or isinstance(nbest, bool) or not 1 <= nbest <= self.max_nbest:
            raise HTTPException(422, f"nbest: must be a whole number, 1 to {self.max_nbest}: the server finds no more")
        return lines, nbest


async def within(seconds: float, work: Awaitable[Any], status: int, fault: str) -> Any:
    """What the work gives, or the refusal."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise HTTPException(status, fault) from None


def shown(translation: Translation) -> dict[str, Any]:
    return {name: value for name, value in translation._asdict().items() if value is not None}
