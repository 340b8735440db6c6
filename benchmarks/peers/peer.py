"""What a peer is, and how a run of one is timed. Standard library only: the peers' environments import it too."""

import contextlib
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LAYERS, DIM, FFN, HEADS, DROPOUT, SMOOTHING, TOKENS, LR, WARMUP = 3, 256, 1024, 4, 0.1, 0.1, 4096, 1e-3, 1000
ENDLESS = 1_000_000  # updates: a run is ended from outside
RAISED = re.compile(r"[\w.]*(Error|Exception)\b")  # as Python's tracebacks end
ROOT = Path(__file__).parents[2]
UPDATE = re.compile(r"^update tokens=(\d+)$")


class PeerError(Exception):
    """Why a peer has no figure, in one line."""


@dataclass(frozen=True)
class Corpus:
    """`SPLIT.LANG` of pieces set apart by spaces, the same for all, and their vocabulary."""

    directory: Path
    source: str = "en"
    target: str = "de"

    def file(self, split: str, lang: str) -> Path:
        return self.directory / f"{split}.{lang}"

    @property
    def pieces(self) -> list[str]:
        """Every piece of the training split, the most frequent first, without special ones."""
        return (self.directory / "pieces.txt").read_text(encoding="utf-8").splitlines()


class Peer(ABC):
    """A program that trains the model of this benchmark. `python` is that of its environment."""

    name: str
    precisions: tuple[str, ...] = ("fp32",)
    installs: tuple[tuple[str, ...], ...] = ()  # arguments of `pip install`, one call after another

    def prepare(self, python: Path, corpus: Corpus, directory: Path) -> None:
        """Write into `directory` what the program wants: binarised text, vocabularies. Not timed."""

    @abstractmethod
    def command(self, python: Path, corpus: Corpus, directory: Path, precision: str) -> list[str]:
        """Train until it is killed, telling every update. `directory` holds what was prepared, and takes the rest."""

    def updated(self, line: str) -> int | None:
        """Target tokens, eos counted and padding not, of the update that this line of output ends."""
        match = UPDATE.match(line)
        return int(match[1]) if match else None


@dataclass(frozen=True)
class Timing:
    """Of one run."""

    rate: float  # target tokens a second between two updates
    core_rate: float | None  # target tokens a second of processor time, which other load disturbs less; on Linux
    updates: int  # between them
    tokens_per_update: float  # median
    first_update: float  # seconds from the start of the program to the end of its first update
    peak_mib: int  # resident memory of the largest of its processes


def say(tokens: int) -> None:
    """The line that `Peer.updated` understands, of drivers that run in a peer's environment."""
    print(f"update tokens={tokens}", flush=True)


def timed(
    command: list[str], updated: Callable[[str], int | None], seconds: float, warmup: int, patience: float = 180
) -> Timing:
    """Run `command` until `seconds` have passed since its update number `warmup`, then kill it.

    Raises PeerError where it ends by itself before that, or says nothing of an update for `patience` seconds.
    """
    started, last_words = time.perf_counter(), deque[str](maxlen=60)
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    alarm = threading.Timer(patience + seconds, os.killpg, (process.pid, signal.SIGKILL))
    alarm.start()
    times, tokens, worked = [], [], []
    try:
        for line in _lines(process, last_words):
            if (count := updated(line)) is None:
                continue
            times.append(time.perf_counter())
            worked.append(_processor_seconds(process.pid))
            tokens.append(count)
            if len(times) > warmup and times[-1] - times[warmup - 1] >= seconds:
                break
        else:
            raise PeerError(f"ended after {len(times)} updates: {_reason(last_words)}")
    finally:
        alarm.cancel()
        peak = _end(process)
    span, work = (clock[-1] - clock[warmup - 1] for clock in (times, worked))
    return Timing(
        rate=sum(tokens[warmup:]) / span,
        core_rate=sum(tokens[warmup:]) / work if work else None,
        updates=len(tokens) - warmup,
        tokens_per_update=statistics.median(tokens[warmup:]),
        first_update=times[0] - started,
        peak_mib=peak,
    )


def _lines(process: "subprocess.Popen[str]", last_words: deque[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        last_words.append(line.strip())
        yield line.strip()


def _reason(last_words: Iterable[str]) -> str:
    """The line that most likely says why a program ended."""
    lines = [line for line in last_words if line] or ["it said nothing"]
    raised = [line for line in lines if RAISED.match(line)]
    told = [line for line in lines if re.search(r"\b(error|aborted)\b", line, re.IGNORECASE)]
    return [*raised[-1:], *told[:1], lines[-1]][0][:200]


def _processor_seconds(pid: int) -> float:
    """What all threads of a process have worked (proc(5), utime and stime), on both sides of the kernel; else 0."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end(process: "subprocess.Popen[str]") -> int:
    """Kill the process and those that it started; the peak of its memory in MiB."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return peak_mib(usage)


def peak_mib(usage: resource.struct_rusage) -> int:
    """Linux counts in KiB, macOS in bytes."""
    return usage.ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def call(command: list[str], what: str) -> None:
    """Run to the end. Raises PeerError with the last words of a program that fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        raise PeerError(f"{what}: {_reason(done.stdout.splitlines()[-60:])}")
