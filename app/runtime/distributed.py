"""The processes of a run ("ranks"), as one of them sees them: who it is, what all agree on, how long it waits."""

import faulthandler
import json
import logging
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from app.config import DistributedConfig
from app.errors import ConfigError, RankError, Stopped
from app.runtime.process_group import process_group

A_DAY = 86400.0
LAST_WORDS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


class Place(NamedTuple):
    """Which process this is."""

    rank: int
    local_rank: int  # on its machine
    world_size: int


def find_place() -> Place | None:
    """What started this process says: torchrun (or our own launcher), or a submitit job of several tasks.

    None: nothing did, this process is alone. The environment then has what `env://` needs.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return Place(int(env["RANK"]), int(env.get("LOCAL_RANK", env["RANK"])), int(env["WORLD_SIZE"]))
    if "SUBMITIT_EXECUTOR" not in env:
        return None
    import submitit

    job = submitit.JobEnvironment()
    if job.num_tasks == 1:
        return None
    port = random.Random(job.job_id).randint(20000, 60000)
    env.update(RANK=str(job.global_rank), WORLD_SIZE=str(job.num_tasks), LOCAL_RANK=str(job.local_rank))
    env.update(MASTER_ADDR=job.hostnames[0], MASTER_PORT=str(port))
    return Place(job.global_rank, job.local_rank, job.num_tasks)


class Workers:
    """All ranks of a run. Alone (`world_size` 1, no process group) every method is a matter of course, and free."""

    def __init__(self, cfg: DistributedConfig | None = None, rank: int = 0, world_size: int = 1):
        self.cfg, self.rank, self.world_size = cfg, rank, world_size
        self.slowest = 0.0  # seconds of the slowest update so far
        self.began: float | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes checkpoints, logs and trackers, and prepares data."""
        return self.rank == 0

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sum over ranks of each number, the same everywhere. All ranks call it, with equally many numbers."""
        if self.world_size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value (plain data: JSON carries it), in the order of ranks, everywhere."""
        if self.world_size == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(own)]))
        longest = max(int(size) for size in sizes)
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(padded, torch.nn.functional.pad(own, (0, longest - len(own))))
        return [json.loads(bytes(row[: int(size)].tolist())) for row, size in zip(padded, sizes)]

    def of_first(self, value: Any) -> Any:
        """What the first rank says (plain data), everywhere."""
        return self.gather(value)[0]

    def wait(self) -> None:
        """Until all ranks are here."""
        self.total([0.0])  # of something: gloo does not exchange what is empty

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The others do what is inside after the first rank has done it: they find it in the cache."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def compare(self, num_updates: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Every `check_interval` updates: raise RankError where a weight is not bit for bit the same on all ranks."""
        if self.world_size == 1 or self.cfg is None or not self.cfg.check_interval:
            return
        if num_updates % self.cfg.check_interval or self.cfg.strategy != "ddp":
            return
        named = dict(weights)
        sums = torch.stack([_bits(tensor) for tensor in named.values()]).cpu()
        most, least = sums.clone(), sums.clone()
        dist.all_reduce(most, dist.ReduceOp.MAX)
        dist.all_reduce(least, dist.ReduceOp.MIN)
        wrong = [name for name, differs in zip(named, (most != least).tolist()) if differs]
        if wrong:
            raise RankError(
                f"update {num_updates}: {len(wrong)} weights are not the same on all ranks, {wrong[0]} the first; "
                "a checkpoint from before goes on; are all machines alike?"
            )

    def updated(self) -> None:
        """An update is over: from now on no rank waits much longer than the slowest took."""
        if self.world_size == 1 or self.cfg is None:
            return
        now = time.monotonic()
        if self.began is not None and now - self.began > self.slowest:
            self.slowest = now - self.began
            self._allow(max(self.cfg.min_timeout, self.cfg.timeout_factor * self.slowest))
        self.began = now

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Inside, ranks wait for each other as long as before the first update: for validation and checkpoints."""
        if self.world_size == 1 or self.cfg is None:
            yield
            return
        self._allow(self.cfg.first_timeout)
        yield
        if self.slowest:
            self._allow(max(self.cfg.min_timeout, self.cfg.timeout_factor * self.slowest))
        self.began = None

    def started(self) -> None:
        """Everything is prepared: from now on ranks wait for each other `first_timeout`."""
        if self.world_size > 1 and self.cfg is not None:
            self._allow(self.cfg.first_timeout)

    def _allow(self, seconds: float) -> None:
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds))


def _bits(tensor: Tensor) -> Tensor:
    """A number that changes with any bit of the tensor."""
    flat = tensor.detach().contiguous().view(-1)
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()]
    return flat.view(whole).sum(dtype=torch.int64)


@contextmanager
def joined(cfg: DistributedConfig) -> Iterator[Workers]:
    """This process as one of its run's ranks, from start to end.

    Raises ConfigError where the number of processes is not what the configuration says, and RankError in place of what
    the backend says when another rank died or stayed away too long.
    """
    place = find_place()
    if place is None or cfg.strategy == "none":
        if place is not None and place.world_size > 1:
            fault = f"{place.world_size} processes were started for one run; choose ddp or fsdp"
            raise ConfigError([f"distributed.strategy=none: {fault}"])
        cfg.world_size = 1
        yield Workers(cfg)
        return
    if cfg.world_size not in (0, place.world_size):
        raise ConfigError([f"distributed.world_size={cfg.world_size}: {place.world_size} were started; leave it at 0"])
    cfg.world_size = place.world_size
    if place.rank:
        quieten(place.rank)
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    with process_group(backend_of(cfg), timedelta(seconds=A_DAY)):
        workers = Workers(cfg, place.rank, place.world_size)
        try:
            stopped: Stopped | None = None
            try:
                yield workers
            except Stopped as error:  # all of them
                stopped = error
            with workers.patient():  # the first may still have a state to save and trackers to end, and a launcher
                workers.wait()  # ends who is left when one has gone
            if stopped is not None:
                raise stopped
        except RuntimeError as error:
            if not is_lost_contact(error):
                raise
            raise RankError(last_words(error, place.rank)) from None


def backend_of(cfg: DistributedConfig) -> str:
    """Gradients go by NCCL where there are GPUs; what ranks agree on goes by gloo, past the GPU's queue."""
    nccl = cfg.backend == "nccl" or (cfg.backend == "auto" and torch.cuda.is_available())
    return "cpu:gloo,cuda:nccl" if nccl else "gloo"


def is_lost_contact(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(word in str(error) for word in LAST_WORDS)


def last_words(error: RuntimeError, rank: int) -> str:
    """The reason in a line; where this rank waited in vain, all its stacks go to standard error first."""
    text = str(error).replace("\n", " ")
    if "imed out" in text or "imeout" in text:
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        why = "another rank did not answer in time (frozen, or much slower?); see distributed.min_timeout"
    else:
        why = "another rank died; its own message says why"
    return f"rank {rank}: {why} [{text[:200]}]"


def quieten(rank: int) -> None:
    """Only warnings of a rank that is not the first are shown, with its number."""

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            record.msg, record.args = f"rank {rank}: {record.getMessage()}", ()
            return True
        return False

    for handler in logging.getLogger().handlers:
        handler.addFilter(keep)
