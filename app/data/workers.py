"""A function over a stream in worker processes: in order, and past the death of one."""

import faulthandler
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from app.errors import WorkerError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # items that each process has in hand
CONTEXT = get_context("forkserver")  # holds nothing of this process: no lock, no thread, no handler
CONTEXT.set_forkserver_preload(["app.data.workers"])


def in_workers(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int, timeout: float
) -> Iterator[Result]:
    """`map(function, items)` by `num_workers` processes, which end with the iteration.

    Processes that die are started once more with what they had in hand. A second death, and a result that is not there
    after `timeout` seconds, are a WorkerError; for the latter the process writes its stack to standard error. What the
    function raises is raised here, when its result is asked for. The function must be picklable.
    """
    stream = iter(items)
    waiting: deque[Item] = deque()  # given and not taken, oldest first
    pool = _Pool(function, num_workers)
    died = False
    try:
        while True:
            try:
                for item in islice(stream, num_workers * AHEAD - len(waiting)):
                    waiting.append(item)
                    pool.give(item)
                if not waiting:
                    return
                result = pool.take(timeout)
            except (EOFError, OSError):
                if died:
                    raise WorkerError(
                        "a process that makes batches died again (memory?); set batching.num_workers=0"
                    ) from None
                logger.warning("a process that makes batches died; all are started again, at the same batch")
                died = True
                pool.close()
                pool = _Pool(function, num_workers)
                stream, waiting = chain(waiting, stream), deque()
                continue
            waiting.popleft()
            yield result
    finally:
        pool.close()


class _Pool:
    """Processes that are given items, and asked for results, in turn."""

    def __init__(self, function: Callable[[Any], Any], num_workers: int):
        self.workers = [_Worker(function) for _ in range(num_workers)]
        self.given = self.taken = 0

    def give(self, item: Any) -> None:
        self.workers[self.given % len(self.workers)].connection.send(item)
        self.given += 1

    def take(self, timeout: float) -> Any:
        result = self.workers[self.taken % len(self.workers)].receive(timeout)
        self.taken += 1
        return result

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


class _Worker:
    """One process at the other end of a pipe."""

    def __init__(self, function: Callable[[Any], Any]):
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self, timeout: float) -> Any:
        if not self.connection.poll(timeout):
            pid = self.process.pid or 0
            os.kill(pid, signal.SIGUSR1)
            time.sleep(0.5)  # for it to write its stack
            raise WorkerError(
                f"process {pid} has made no batch for {timeout:g} seconds; its stack stands above; "
                "set batching.worker_timeout higher, or batching.num_workers=0"
            )
        error, result = self.connection.recv()
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """A worker's life: it ends with the pipe, and leaves Ctrl-C and preemption to the process that it works for."""
    for number in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.register(signal.SIGUSR1)
    torch.set_num_threads(1)
    while True:
        try:
            item = connection.recv()
        except (EOFError, ConnectionError):  # the latter where an answer was not read any more
            return
        answer: tuple[Exception | None, Any]
        try:
            answer = (None, function(item))
        except Exception as error:  # told where the result is asked for
            answer = (error, None)
        try:
            connection.send(answer)
        except ConnectionError:
            return
