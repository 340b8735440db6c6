"""The row of fairseq-generate: what it says is read, and why there is none is told."""

import argparse
import stat
from pathlib import Path

import pytest

from benchmarks import decode, decode_fairseq
from benchmarks.peers.peer import PeerError

SAID = """H-1\t-0.2\tb c
P-1\t-0.1 -0.3
H-0\t-0.5\ta
INFO:fairseq_cli.generate:Translated 2 sentences (5 tokens) in 0.5s (4.00 sentences/s, 10.00 tokens/s)
"""


def program(path: Path, says: str, ends: int = 0) -> Path:
    """What stands in for the Python of fairseq's environment."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\nexit {ends}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_what_fairseq_says_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_fairseq, "PYTHON", program(tmp_path / "python", SAID))
    found = decode_fairseq.generate(tmp_path, beam=5, max_tokens=100, threads=1, rounds=2)
    assert (found.pieces, found.sentences, found.tokens) == ([["a"], ["b", "c"]], 4.0, 10.0)


def test_a_failing_fairseq_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_fairseq, "PYTHON", program(tmp_path / "python", "loading\nKeyError: 'x'\n", 1))
    with pytest.raises(PeerError, match="fairseq-generate: KeyError: 'x'"):
        decode_fairseq.generate(tmp_path, beam=5, max_tokens=100, threads=1, rounds=2)


def test_without_fairseq_the_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_fairseq, "PYTHON", tmp_path / "python")
    row = decode.measured("outputs/run", None, "fairseq", "fp32", 5, argparse.Namespace())
    assert row == {"engine": "fairseq", "precision": "fp32", "beam": 5, "error": decode_fairseq.MISSING}
