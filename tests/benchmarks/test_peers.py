"""The comparison with other programs: what needs none of them."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.peers import __main__ as command
from benchmarks.peers import corpus as text
from benchmarks.peers.peer import ROOT, PeerError, peak_mib, timed
from tests.runs import write_corpus

LINES = {
    "marian": (
        "[2026-11-22 22:46:00] Ep. 1 : Up. 1 : Sen. 282 : Cost 9.50736809 * 4,097 @ 4,100 after 8,194 : Time 53.89s",
        4097,
    ),
    "eole": (
        "[2026-11-22 22:46:00,1 INFO] Step  7/1000000; acc: 1.2; ppl: 9000.1; xent: 9.11; aux: 0.000; mtp: 0.000; "
        "attn_ent: 0.000; lr: 7.00e-06; sents:     250; bsz: 3801/3950/250; 800/900 tok/s;      7 sec;",
        3950,
    ),
    "fairseq": (
        '2026-11-22 | INFO | train_inner | {"epoch": 1, "update": 0.01, "wps": "0", "wpb": "3981", "num_updates": "1"}',
        3981,
    ),
    "huggingface": ("update tokens=4012", 4012),
    "joeynmt": ("update tokens=4013", 4013),
    "seqwright": (
        "22:46:00 INFO train: update=3/1000000 epoch=1 loss=13.2 nll_loss=13.1 wps=3211 ups=0.8028 lr=3e-06 gnorm=4.5",
        4000,
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_corpus(tmp_path_factory.mktemp("peers") / "data", sizes=(200, 20, 1))
    for file in directory.iterdir():
        file.rename(file.with_suffix({".xx": ".en", ".yy": ".de"}[file.suffix]))
    return directory


def program(words: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, time\n{words}"]


@pytest.mark.parametrize("name", command.PEERS)
def test_updates_are_read_from_what_a_program_says(name: str) -> None:
    line, tokens = LINES[name]
    assert command.PEERS[name].updated(line) == tokens
    assert command.PEERS[name].updated("[2026-11-22 22:46:00] Training started") is None


def test_the_rate_is_of_tokens_between_two_updates() -> None:
    """A slow start and the updates of the warm-up do not count; 100 tokens each 0.05 s are 2,000 a second at most."""
    loop = "time.sleep(0.3)\nfor i in range(999):\n    time.sleep(0.05); print('update tokens=100', flush=True)"
    timing = timed(program(loop), command.PEERS["joeynmt"].updated, seconds=0.5, warmup=2)
    assert 200 < timing.rate <= 2000
    assert timing.updates >= 2
    assert timing.tokens_per_update == 100
    assert timing.first_update > 0.3
    assert timing.core_rate is None or timing.core_rate > timing.rate  # it sleeps most of the time
    own = peak_mib(resource.getrusage(resource.RUSAGE_SELF))  # which a new process begins with on Linux
    assert 3 < timing.peak_mib <= max(200, own)


def test_a_program_that_ends_says_why() -> None:
    words = "print('update tokens=5', flush=True); print('Error: no such option', flush=True); sys.exit('  frame 7')"
    with pytest.raises(PeerError, match="ended after 1 updates: Error: no such option"):
        timed(program(words), command.PEERS["joeynmt"].updated, seconds=5, warmup=1)
    with pytest.raises(PeerError, match="ZeroDivisionError"):
        timed(program("print('an error is near'); 1 / 0"), command.PEERS["joeynmt"].updated, seconds=5, warmup=1)


def test_a_program_that_hangs_is_ended() -> None:
    started = time.perf_counter()
    with pytest.raises(PeerError, match="ended after 0 updates: it said nothing"):
        timed(program("time.sleep(60)"), command.PEERS["joeynmt"].updated, seconds=0.1, warmup=1, patience=0.5)
    assert time.perf_counter() - started < 30


def test_text_is_cut_once_and_anew_for_other_text(data: Path, tmp_path: Path) -> None:
    corpus = text.prepare(data, tmp_path / "corpus", pieces=60)
    cut = corpus.file("train", "de").read_text().splitlines()
    plain = ["".join(line.split()).replace("\N{LOWER ONE EIGHTH BLOCK}", " ").strip() for line in cut]
    assert plain == (data / "train.de").read_text().splitlines()
    assert set(corpus.pieces) >= {piece for line in cut for piece in line.split()}
    (corpus.directory / "eole").mkdir()
    text.prepare(data, tmp_path / "corpus", pieces=60)
    assert (corpus.directory / "eole").is_dir()
    text.prepare(data, tmp_path / "corpus", pieces=50)
    assert not (corpus.directory / "eole").exists()


def result(peer: str, precision: str, number: int, **figures: Any) -> dict[str, Any]:
    figures |= {"core_rate": figures["rate"] / 2} if "rate" in figures else {}
    rest = {"updates": 9, "tokens_per_update": 4000.0, "first_update": 5.0, "peak_mib": 1000}
    return {
        "peer": peer,
        "precision": precision,
        "round": str(number),
        **(figures if "error" in figures else rest | figures),
    }


def test_rows_compare_within_a_round_with_our_best() -> None:
    rates = ((1000, 2000, 500), (3000, 4000, 2000), (100, 200, 100))  # the last two rounds: half of ours
    results = []
    for number, (fp32, bf16, other) in enumerate(rates):
        results += [result("seqwright", "fp32", number, rate=fp32), result("seqwright", "bf16", number, rate=bf16)]
        results += [result("marian", "fp32", number, rate=other), result("eole", "bf16", number, error="no wheel")]
    made = {row["row"]: row for row in command.rows(results)}
    assert list(made) == ["seqwright bf16", "seqwright fp32", "marian fp32", "eole bf16"]
    assert made["marian fp32"]["rate"] == 500
    assert made["marian fp32"]["rate of ours"] == made["marian fp32"]["core_rate of ours"] == 0.5
    assert made["seqwright bf16"]["rate of ours"] == 1
    console = Console(width=120)
    with console.capture() as shown:
        console.print(command.table_of(results))
    assert "none: no wheel" in shown.get()


def test_ours_has_a_row(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = ["--only", "seqwright:fp32", "--rounds", "1", "--seconds", "0.1", "--warmup", "1", "--pieces", "60"]
    command.main([str(data), *given])
    (row,) = [json.loads(line) for line in (tmp_path / "outputs/bench/peers.jsonl").read_text().splitlines()]
    assert (row["peer"], row["precision"]) == ("seqwright", "fp32")
    assert row["rate"] > 0
    assert 100 < row["tokens_per_update"] <= 4096


def test_a_command_that_is_ended_ends_what_it_times(data: Path, tmp_path: Path) -> None:
    """The program that is timed here is `sleep`, in a session of its own, whose number is in a file."""
    script = tmp_path / "peer.py"
    script.write_text(
        "from benchmarks.peers import __main__ as command\n"
        f"command.OURS.command = lambda *_: ['sh', '-c', 'echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new "
        f"{tmp_path}/pid; exec sleep 60']\n"
        f"command.main([{str(data)!r}, '--only', 'seqwright:fp32', '--pieces', '60'])\n"
    )
    running = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not (tmp_path / "pid").is_file():
        assert running.poll() is None
        time.sleep(0.05)
    running.terminate()
    assert running.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("only", ["nobody", "marian:bf16"])
def test_unknown_rows_are_refused(only: str, data: Path) -> None:
    with pytest.raises(SystemExit, match=f"no row {only}; there are seqwright:fp32, seqwright:bf16, marian:fp32"):
        command.main([str(data), "--only", only])


def test_missing_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="train.en.gz: No such file"):
        command.main([str(tmp_path), "--only", "seqwright", "--out", str(tmp_path / "out")])
