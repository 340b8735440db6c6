"""`python -m benchmarks.peers DATA`: how fast others train what we train, on this machine, side by side.

DATA holds `train.en`, `train.de`, `valid.en`, `valid.de` (or the same with `.gz`), such as Multi30k. Everybody trains
a Transformer of 3+3 layers of width 256 on the same 8,000 SentencePieces, cut beforehand, in batches of about 4,096
target tokens, with dropout and label smoothing of 0.1 and Adam, on all cores. Each peer is installed by pip into an
environment of its own below outputs/peers, with this environment's version of torch, and trains by its own command.

`tokens/s` are target tokens (eos counted, padding not) between two updates, after `--warmup` updates: the median over
rounds, in each of which everybody has a turn. `a core` are those tokens a second of processor time, which other load on
the machine disturbs less. `of ours` are medians of the ratios to our best row in the same round.
One JSON line a run goes to outputs/bench/peers.jsonl; one whose program fails has the reason instead of figures.
"""

import argparse
import json
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peers import corpus as text
from benchmarks.peers.eole import Eole
from benchmarks.peers.fairseq import Fairseq
from benchmarks.peers.huggingface import HuggingFace
from benchmarks.peers.joeynmt import JoeyNMT
from benchmarks.peers.marian import Marian
from benchmarks.peers.peer import Corpus, Peer, PeerError, call, timed
from benchmarks.peers.seqwright import Seqwright
from benchmarks.tables import Figures

OURS = Seqwright()
PEERS: dict[str, Peer] = {peer.name: peer for peer in (OURS, Marian(), Eole(), HuggingFace(), Fairseq(), JoeyNMT())}


def installed(peer: Peer, directory: Path) -> Path:
    """Python of the peer's environment, which is made where it is missing or holds something else."""
    if not peer.installs:
        return Path(sys.executable)
    python, note = directory / "venv" / "bin" / "python", directory / "installed.json"
    wanted = json.dumps([*peer.installs, f"torch=={torch_version()}"])
    if note.is_file() and note.read_text() == wanted and python.is_file():
        return python
    if not python.is_file():
        call([sys.executable, "-m", "venv", str(directory / "venv")], "venv")
    limits = directory / "limits.txt"
    limits.write_text(f"torch=={torch_version()}\n")
    for packages in peer.installs:
        pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(limits)]
        call([*pip, *packages], f"pip install {' '.join(packages)}")
    note.write_text(wanted)
    return python


def torch_version() -> str:
    """Without the local part, which says how it was built."""
    return version("torch").partition("+")[0]


def measured(peer: Peer, precision: str, corpus: Corpus, out: Path, seconds: float, warmup: int) -> dict[str, Any]:
    """The figures of one run, or why there are none."""
    directory = out / peer.name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        python = installed(peer, directory).absolute()
        prepared = corpus.directory / peer.name
        if not prepared.is_dir():
            prepared.mkdir()
            try:
                peer.prepare(python, corpus, prepared)
            except PeerError:
                shutil.rmtree(prepared)
                raise
        shutil.rmtree(prepared / "run", ignore_errors=True)
        return asdict(timed(peer.command(python, corpus, prepared, precision), peer.updated, seconds, warmup))
    except (PeerError, OSError) as error:
        return {"error": str(error)}


def runs(
    chosen: list[tuple[Peer, str]], corpus: Corpus, out: Path, rounds: int, seconds: float, warmup: int
) -> Iterator[dict[str, Any]]:
    """Everybody in turn, `rounds` times."""
    for number in range(rounds):
        started = time.strftime("%Y-%m-%dT%H:%M:%S")
        for peer, precision in chosen:
            figures = measured(peer, precision, corpus, out, seconds, warmup)
            yield {"peer": peer.name, "precision": precision, "round": f"{started}#{number}", **figures}


def rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over rounds, the fastest first. `of ours` compares with our best run of the same round."""
    made = []
    for key in dict.fromkeys((result["peer"], result["precision"]) for result in results):
        mine = [result for result in results if (result["peer"], result["precision"]) == key]
        good = [result for result in mine if "rate" in result]
        if not good:
            made.append({"row": " ".join(key), "rate": 0.0, "error": mine[-1]["error"]})
            continue
        row: dict[str, Any] = {"row": " ".join(key), "runs": len(good)}
        for name in ("rate", "core_rate", "tokens_per_update", "first_update", "peak_mib"):
            row |= median_of(name, [result[name] for result in good])
        for name in ("rate", "core_rate"):
            ours = best_of_ours(results, name)
            ratios = [
                result[name] / ours[result["round"]] for result in good if result["round"] in ours and result[name]
            ]
            row |= median_of(f"{name} of ours", ratios)
        made.append(row)
    return sorted(made, key=lambda row: -row["rate"])


def median_of(name: str, values: list[float | None]) -> dict[str, float]:
    """`name` and the median; nothing where there are no values."""
    known = [value for value in values if value is not None]
    return {name: statistics.median(known)} if known else {}


def best_of_ours(results: list[dict[str, Any]], name: str) -> dict[str, float]:
    """The highest figure `name` of ours in each round."""
    best: dict[str, float] = {}
    for result in results:
        if result["peer"] == OURS.name and result.get(name):
            best[result["round"]] = max(result[name], best.get(result["round"], 0.0))
    return best


def table_of(results: list[dict[str, Any]]) -> Figures:
    names = ("tokens/s", "of ours", "a core", "of ours", "runs", "tokens an update", "first update, s", "peak MiB")
    table = Figures("row", *names)
    for row in rows(results):
        if "error" in row:
            table.add_row(row["row"], f"none: {row['error']}")
            continue
        shown = [
            (f"{row[name]:,.0f}", f"{row[f'{name} of ours']:.2f}" if f"{name} of ours" in row else "")
            if name in row
            else ("", "")
            for name in ("rate", "core_rate")
        ]
        rest = (f"{row['tokens_per_update']:,.0f}", f"{row['first_update']:.1f}", f"{row['peak_mib']:,.0f}")
        table.add_row(row["row"], *shown[0], *shown[1], str(row["runs"]), *rest)
    return table


def chosen_of(names: str | None) -> list[tuple[Peer, str]]:
    """Rows by names such as `marian` and `eole:bf16`, separated by commas; all without names."""
    known = {(peer.name, precision): (peer, precision) for peer in PEERS.values() for precision in peer.precisions}
    if names is None:
        return list(known.values())
    found = []
    for name in names.split(","):
        peer, _, precision = name.partition(":")
        mine = [row for key, row in known.items() if key[0] == peer and precision in ("", key[1])]
        if not mine:
            there = ", ".join(":".join(key) for key in known)
            sys.exit(f"benchmarks.peers: --only: no row {name}; there are {there}")
        found += mine
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", type=Path, help="directory of the text")
    parser.add_argument("--only", metavar="NAME,...", help="these alone, such as seqwright,marian,eole:bf16")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each has")
    parser.add_argument("--seconds", type=float, default=30, help="how long each is timed")
    parser.add_argument("--warmup", type=int, default=5, help="updates before that")
    parser.add_argument("--pieces", type=int, default=text.PIECES, help="size of the vocabulary")
    parser.add_argument("--append", action="store_true", help="keep the runs that are in the file, and show them too")
    parser.add_argument("--install", action="store_true", help="make the environments, and end")
    parser.add_argument("--out", type=Path, default=Path("outputs/peers"), help="where environments and text are")
    args = parser.parse_args(arguments)
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what is timed is ended too
    try:
        compare(args)
    finally:
        signal.signal(signal.SIGTERM, before)


def compare(args: argparse.Namespace) -> None:
    """The runs that are asked for, told and written as they end, and the table of them."""
    chosen, file = chosen_of(args.only), Path("outputs/bench/peers.jsonl")
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        corpus = text.prepare(args.data, (args.out / "corpus").absolute(), args.pieces)
    except OSError as error:
        sys.exit(f"benchmarks.peers: {error.filename}: {error.strerror}; give a directory with train.en, train.de, ...")
    if args.install:
        for peer in dict.fromkeys(peer for peer, _ in chosen):
            try:
                console.print(f"{peer.name}: {installed(peer, args.out / peer.name)}")
            except PeerError as error:
                console.print(f"{peer.name}: {error}")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in file.read_text().splitlines()] if args.append and file.is_file() else []
    with file.open("a" if args.append else "w", encoding="utf-8") as lines:
        for result in runs(chosen, corpus, args.out, args.rounds, args.seconds, args.warmup):
            results.append(result)
            print(json.dumps(result), file=lines, flush=True)
            print(json.dumps(result), flush=True)
    console.print(table_of(results))
    console.print(f"written to {file}")


if __name__ == "__main__":
    main()
