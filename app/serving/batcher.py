"""Requests that wait while a batch is computed become the next batch."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from app.interfaces import Translation

Found = list[list[Translation]]


class Full(Exception):  # noqa: N818 - it says what the queue is
    """The queue holds as many lines as it may."""


class Waiting(NamedTuple):
    lines: list[str]
    answer: "asyncio.Future[Found]"


class Batcher:
    """One thread translates; requests wait in a bounded queue, in order, and are batched together.

    Nothing waits for company: a request that finds the thread idle is translated at once.
    """

    def __init__(self, translate: Callable[[list[str]], Found], max_batch_lines: int, max_queue_lines: int):
        self.translate = translate
        self.max_batch_lines, self.max_queue_lines = max_batch_lines, max_queue_lines
        self.queue: deque[Waiting] = deque()
        self.came = asyncio.Event()
        self.observers: list[Callable[[int], object]] = []  # told the number of lines of every batch

    @property
    def queued(self) -> int:
        """Lines that wait."""
        return sum(len(each.lines) for each in self.queue)

    async def submit(self, lines: list[str], timeout: float) -> Found:
        """The translations of the lines. Raises `Full` at once, or `TimeoutError` after so many seconds."""
        if self.queued + len(lines) > self.max_queue_lines:
            raise Full
        waiting = Waiting(lines, asyncio.get_running_loop().create_future())
        self.queue.append(waiting)
        self.came.set()
        return await asyncio.wait_for(waiting.answer, timeout)

    async def run(self) -> None:
        """Translate what comes, until cancelled."""
        with ThreadPoolExecutor(1, "translate") as thread:
            while True:
                await self.came.wait()
                batch = self.next_batch()
                if batch:
                    await self.answer(batch, thread)

    def next_batch(self) -> list[Waiting]:
        """The oldest requests whose lines fit, the first one always; those whose clients have gone are left out."""
        batch: list[Waiting] = []
        lines = 0
        while self.queue and (not batch or lines + len(self.queue[0].lines) <= self.max_batch_lines):
            waiting = self.queue.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
                lines += len(waiting.lines)
        if not self.queue:
            self.came.clear()
        return batch

    async def answer(self, batch: list[Waiting], thread: ThreadPoolExecutor) -> None:
        """Translate these requests together; where that fails each by itself, so that one does not fail the others."""
        lines = [line for waiting in batch for line in waiting.lines]
        for tell in self.observers:
            tell(len(lines))
        try:
            found = iter(await asyncio.get_running_loop().run_in_executor(thread, self.translate, lines))
        except Exception as error:  # is the client's to hear, and no end of the server
            for waiting in batch:
                if not waiting.answer.done() and len(batch) > 1:
                    await self.answer([waiting], thread)
                elif not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting in batch:
            translations = [next(found) for _ in waiting.lines]
            if not waiting.answer.done():
                waiting.answer.set_result(translations)
