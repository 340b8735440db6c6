"""`app.preprocess`, used as a user does."""

import subprocess
import sys
from pathlib import Path


def preprocess(directory: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.preprocess", f"cache_dir={directory / 'cache'}", *overrides]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env={"COLUMNS": "120"})


def test_prepares_every_split_and_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split, lines in (("train", ["a b", "c", ""]), ("valid", ["a"])):
        (data / f"{split}.en").write_text("".join(f"{line}\n" for line in lines))
        (data / f"{split}.de").write_text("x y\n" * len(lines))
    first = preprocess(tmp_path, f"task.data={data}", "tokenizer=pretokenized")
    assert first.returncode == 0, first.stderr
    rows = [line.split("│")[1:-1] for line in first.stdout.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0][:5] == ["train", "2", "6", "5", "1"]  # from de to en: the first in alphabetical order
    assert cells[1][:5] == ["valid", "1", "3", "2", "0"]
    assert f"cache: {tmp_path / 'cache'}" in first.stdout
    prepared = [path.name.partition("-")[0] for path in (tmp_path / "cache").glob("[a-z]*-*")]
    assert sorted(prepared) == ["rows", "rows", "text"]


def test_faults_end_with_their_exit_codes(tmp_path: Path) -> None:
    missing = preprocess(tmp_path, "task.data=nowhere", "tokenizer=word")
    assert (missing.returncode, "Traceback" in missing.stderr) == (2, False)
    assert "task.data=nowhere: no such directory" in missing.stderr
    (tmp_path / "train.en").write_bytes(b"caf\xe9\n")
    (tmp_path / "train.de").write_bytes(b"x\n")
    bad = preprocess(tmp_path, f"task.data={tmp_path}", "tokenizer=word", "task.source_lang=en")
    assert bad.returncode == 3
    assert "train.en: line 1 is not UTF-8 (byte 0xe9 at column 4)" in bad.stderr
