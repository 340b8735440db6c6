"""The row of fairseq-generate in `benchmarks.decode`: the same weights, exported, and the same pieces of the test set.

The environment is the one that `benchmarks.peers` makes. What is timed is what fairseq-generate says itself: encoding,
searching and nothing else, where our rows have tokenization and detokenization in their time too.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.peer import PeerError, peak_mib

PYTHON = Path("outputs/peers/fairseq/venv/bin/python")
MISSING = (
    f"{PYTHON}: no fairseq there; make its environment by: python -m benchmarks.peers DATA --only fairseq --install"
)
TOLD = re.compile(r"Translated [\d,]+ sentences .* \(([\d.]+) sentences/s, ([\d.]+) tokens/s\)")


@dataclass(frozen=True)
class Generated:
    """What fairseq-generate found, and how fast in the best round."""

    pieces: list[list[str]]  # of the best hypothesis of each sentence, in order
    sentences: float  # a second
    tokens: float  # a second, eos counted
    peak_mib: int


def prepare(checkpoint: str, data: str | None, directory: Path) -> None:
    """Write model, dictionaries and the binarised test split. A process of its own: it needs memory."""
    command = [sys.executable, "-m", __name__, checkpoint, data or "", str(directory)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def generate(directory: Path, beam: int, max_tokens: int, threads: int, rounds: int) -> Generated:
    """Run fairseq-generate so many times. Raises PeerError with its last line where it fails."""
    command = [str(PYTHON), "-m", "fairseq_cli.generate", str(directory / "data-bin"), "--cpu", "--num-workers", "0"]
    command += ["--path", str(directory / "model" / "model.pt"), "--task", "translation", "--gen-subset", "test"]
    command += ["--beam", str(beam), "--max-len-a", "1.5", "--max-len-b", "10", "--max-tokens", str(max_tokens)]
    threads = threads or len(os.sched_getaffinity(0))
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    output, told, peaks = "", [], []
    for _ in range(rounds):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", env=env
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if (match := TOLD.search(output)) is None:
            raise PeerError(f"fairseq-generate: {(output.strip().splitlines() or ['it said nothing'])[-1]}")
        told.append((float(match[1]), float(match[2])))
        peaks.append(peak_mib(usage))
    found = dict(hypothesis(line) for line in output.splitlines() if line.startswith("H-"))
    return Generated([found[number] for number in range(len(found))], *max(told), max(peaks))


def hypothesis(line: str) -> tuple[int, list[str]]:
    """Number and pieces of a line such as `H-12 <tab> -0.5 <tab> pieces`."""
    name, _, pieces = line.split("\t")
    return int(name.removeprefix("H-")), pieces.split(" ")


def write(checkpoint: Path, data: str | None, directory: Path) -> None:
    """What `prepare` asks for."""
    from app.assembly import restore
    from app.cli import store_schema
    from app.fairseq.data import write_data_bin
    from app.fairseq.exporting import export

    store_schema("train")
    restored = restore(checkpoint, data=data)
    (directory / "model").mkdir(parents=True)
    export(restored, directory / "model")
    restored.task.prepare(directory / "cache")
    write_data_bin(restored.task, ["test"], directory / "data-bin")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2] or None, Path(sys.argv[3]))
