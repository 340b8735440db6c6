"""A function over a stream, in several processes, in order, with memory that does not grow with the stream."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from app.errors import WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 4  # items that are done before processes would have started


def in_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last perhaps shorter."""
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


class _Worker:
    """A worker process: the function is sent once, not with every item."""

    function: Callable[[Any], Any]

    @classmethod
    def start(cls, function: Callable[[Any], Any]) -> None:
        cls.function = staticmethod(function)

    @classmethod
    def call(cls, item: Any) -> Any:
        return cls.function(item)


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """`map(function, items)` over `num_workers` processes (0: one a core); no process for one worker or a few items.

    Processes are spawned, not forked, since threads of the tensor library may be running: a script of your own must
    stand behind `if __name__ == "__main__"`. A worker that dies is a `WorkerError`.
    """
    num_workers = num_workers or len(os.sched_getaffinity(0))
    stream = iter(items)
    first = list(islice(stream, FEW))
    if num_workers == 1 or len(first) < FEW:
        yield from map(function, first)
        yield from map(function, stream)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=spawn, initializer=_Worker.start, initargs=(function,))
    try:
        waiting = deque(pool.submit(_Worker.call, item) for item in (*first, *islice(stream, num_workers)))
        while waiting:
            result: Result = waiting.popleft().result()
            waiting.extend(pool.submit(_Worker.call, item) for item in islice(stream, 1))
            yield result
    except BrokenProcessPool:
        raise WorkerError("a process that encodes text died (memory?); set task.num_workers=1") from None
    finally:
        pool.shutdown(cancel_futures=True)
