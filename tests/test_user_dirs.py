"""A user's own directory, used as he would: another process, another working directory, his own paths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.check import KINDS
from app.cli import arguments, store_schema
from app.compose import compose_one, composing
from app.new import write_plugin
from app.plugins import configure, open_search_paths

USER_DIRS = Path(__file__).parent / "user_dirs"
TINY_LSTM = ["model.embed_dim=8", "model.hidden_size=8"]
TINY_TRANSFORMER = [f"model.{side}_{name}" for side in ("encoder", "decoder") for name in ("embed_dim=8", "layers=1")]


def train(home: Path, *arguments: str, command: str = "train") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{USER_DIRS}:{home}", "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", f"app.{command}", *arguments]
    return subprocess.run(program, cwd=home, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A working directory with a small corpus, and with directories whose names are ours too."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("this: is not the program's\n")
    (tmp_path / "data").mkdir()
    for split, count in (("train", 24), ("valid", 6)):
        lines = [" ".join("abcdefgh"[(i + j) % 8] for j in range(3 + i % 4)) for i in range(count)]
        (tmp_path / "data" / f"{split}.xx").write_text("".join(line + "\n" for line in lines))
        (tmp_path / "data" / f"{split}.yy").write_text("".join(line.upper() + "\n" for line in lines))
    return tmp_path


DATA = ["task.data=data", "task.source_lang=xx", "task.target_lang=yy", "tokenizer=word", "trainer.decode_valid=false"]
SHORT = ["trainer.max_update=2", "trainer.device=cpu", "batching.max_tokens=2048"]


def test_a_named_architecture_is_yaml_alone(home: Path) -> None:
    search_path = f"hydra.searchpath=[file://{USER_DIRS}/named/conf]"
    done = train(home, search_path, "model=my_transformer", "--cfg", "job", "-p", "model")
    assert done.returncode == 0, done.stderr
    assert "encoder_layers: 2" in done.stdout
    assert "dropout: 0.4" in done.stdout
    assert "encoder_embed_dim: 1024" in done.stdout  # from transformer_big


def test_a_new_class_trains_from_a_directory(home: Path) -> None:
    search_path = f"hydra.searchpath=[file://{USER_DIRS}/my_module/conf]"
    done = train(home, search_path, "model=my_lstm", *TINY_LSTM, *DATA, *SHORT)
    assert done.returncode == 0, done.stderr
    (run,) = [path for path in (home / "outputs").iterdir() if path.name.startswith("translation-my_lstm-")]
    assert (run / "metrics.jsonl").stat().st_size > 0
    without = train(home, f"checkpoint={run}", "input=data/valid.xx", command="generate")
    assert without.returncode == 2
    directory = USER_DIRS / "my_module"
    told = f"the run was trained with {directory}; add hydra.searchpath=[file://{directory}/conf]"
    assert f"model._target_=my_module.lstm.LSTM: {told}" in without.stderr
    (run / "packages.json").write_text('{"my_module": "/gone/my_module"}')
    gone = train(home, f"checkpoint={run}", "input=data/valid.xx", command="generate")
    assert "trained with /gone/my_module, which is not there any more: bring it back;" in gone.stderr


def test_a_sweep_over_own_and_given_criterions(home: Path) -> None:
    for kind in ("model", "criterion", "optimizer", "lr_scheduler"):
        write_plugin(kind, f"my_{kind}", home / "own_kinds")
    own = ["hydra.searchpath=[pkg://own_kinds.conf]", "optimizer=my_optimizer", "lr_scheduler=my_lr_scheduler"]
    criterions = "criterion=my_criterion,cross_entropy"
    done = train(home, "-m", *own, criterions, "model=my_model", "model.embed_dim=8", *DATA, *SHORT)
    assert done.returncode == 0, done.stderr
    (sweep,) = (home / "outputs" / "sweeps").iterdir()
    assert len(list(sweep.glob("*/metrics.jsonl"))) == 2


def test_a_subclass_trains_in_a_sweep_from_a_package(home: Path) -> None:
    chosen = ["hydra.searchpath=[pkg://my_module.conf]", "model=windowed_transformer", "model.window=1,2"]
    done = train(home, "-m", *chosen, *TINY_TRANSFORMER, *DATA, *SHORT)
    assert done.returncode == 0, done.stderr
    (sweep,) = (home / "outputs" / "sweeps").iterdir()
    assert sweep.name.startswith("translation-windowed_transformer-model.window-")
    runs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [run.name for run in runs] == ["model.window=1", "model.window=2"]
    assert all((run / "metrics.jsonl").stat().st_size > 0 for run in runs)


def test_a_config_dir_stands_beside_search_paths() -> None:
    store_schema("train")
    given = ["--config-dir", str(USER_DIRS / "named" / "conf"), f"hydra.searchpath=[file://{USER_DIRS}/my_module/conf]"]
    for model in ("my_transformer", "my_lstm"):
        args = arguments("train", [*given, f"model={model}"])
        with composing():
            assert compose_one("train", args.overrides).faults == []


def test_a_fault_in_a_users_file_is_told_with_its_line(home: Path) -> None:
    (home / "mine" / "conf" / "model").mkdir(parents=True)
    (home / "mine" / "__init__.py").touch()
    (home / "mine" / "net.py").write_text("import torch\n\nprint(undefined)\n")
    (home / "mine" / "conf" / "model" / "net.yaml").write_text("_target_: mine.net.Net\n")
    done = train(home, "hydra.searchpath=[file://mine/conf]", "model=net", *DATA, *SHORT)
    assert done.returncode == 2
    assert "net.py:3" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "outputs").exists()


class Source:
    """As Hydra reports a search path."""

    provider, schema, path = "hydra.searchpath in command-line", "file", str(USER_DIRS / "my_module" / "conf")


class Vocabulary:
    pad = 1

    def __len__(self) -> int:
        return 12


class Task:
    source_vocabulary = target_vocabulary = Vocabulary()


SIZES = {"embed_dim": 8, "hidden_size": 8, "layers": 2, "dropout": 0.0}


@torch.no_grad()
def test_the_lstm_keeps_the_interface_of_a_model() -> None:
    open_search_paths([Source()])
    node = {"_target_": "my_module.lstm.LSTM", "max_source_positions": 9, "max_target_positions": 9, **SIZES}
    model = configure(node, KINDS["model"])(Task())
    src_tokens, lengths = torch.tensor([[4, 5, 2], [6, 2, 1]]), torch.tensor([3, 2])
    prev = torch.tensor([[2, 7, 8], [2, 9, 4], [2, 5, 5], [2, 6, 6]])  # two hypotheses for each sentence
    encoder_out = model.encode(src_tokens, lengths)
    whole = model.decode(prev, encoder_out)
    cache = model.new_cache()
    steps = [model.decode(prev[:, t : t + 1], encoder_out, cache) for t in range(3)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    left_padded = model.encode(torch.tensor([[4, 5, 2], [1, 6, 2]]), lengths)
    torch.testing.assert_close(model.decode(prev, left_padded), whole)
