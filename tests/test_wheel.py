"""The wheel is the whole program: built from the tree, installed where nothing else of it is, run from `/`."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path = Path("/")) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel, and sees the libraries here but not the editable tree."""
    home = tmp_path_factory.mktemp("wheel")
    for part in ("app", "conf"):
        shutil.copytree(ROOT / part, home / "tree" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, home / "tree" / part)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", home, home / "tree")
    (wheel,) = home.glob("seqwright-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", home / "venv")
    (site_packages,) = (home / "venv").glob("lib/python*/site-packages")
    run(*pip, "install", "--no-deps", "--target", site_packages, wheel)
    (site_packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "venv" / "bin" / "python"


def test_the_wheel_holds_the_configuration(python: Path) -> None:
    where = run(python, "-c", "import app, conf; print(app.__file__, conf.__file__)")
    assert where.count(str(python.parents[1])) == 2
    assert "transformer_big" in run(python, "-m", "app.train", "--help")


def test_the_wheel_trains_from_the_root_directory(python: Path, tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for language in ("xx", "yy"):
            (tmp_path / f"{split}.{language}").write_text("a b c\nb c\nc a\nb a c\n" * 8)
    run(
        *(python, "-m", "app.train", f"task.data={tmp_path}", "task.source_lang=xx", "task.target_lang=yy"),
        *("tokenizer=word", "model=transformer_tiny", "trainer.max_update=5", "trainer.decode_valid=false"),
        *(f"run_dir={tmp_path}/run", f"cache_dir={tmp_path}/cache", "trainer.device=cpu"),
    )
    assert '"num_updates": 5' in (tmp_path / "run" / "metrics.jsonl").read_text()
