"""data-bin directories are written, and read in place by tasks, with the numbers of the text that they came from."""

from pathlib import Path

import numpy as np
import pytest

from app import preprocess, train
from app.assembly import restore
from app.data.indexed import IndexedStore
from app.errors import ConfigError, DataError
from tests.runs import TINY, configured, write_corpus

TEXT = [override for override in TINY if not override.startswith(("model", "trainer", "precision", "optimizer", "lr"))]
PIECES = ["tokenizer=pretokenized"]


def binarise(directory: Path, *overrides: str) -> Path:
    """The invented corpus as a data-bin directory."""
    write_corpus(directory / "corpus")
    places = [f"task.data={directory / 'corpus'}", f"cache_dir={directory / 'cache'}", "format=fairseq"]
    output = directory / "data-bin"
    given = [override for override in [*TEXT, *PIECES] if not override.startswith("batching")]
    preprocess.run(*configured([*given, *places, f"output={output}", *overrides], "preprocess"))
    return output


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home: Path = tmp_path_factory.mktemp("binarised")
    binarise(home)
    return home


def lines(directory: Path, split: str, lang: str) -> list[str]:
    return (directory / "corpus" / f"{split}.{lang}").read_text().splitlines()


def test_every_line_is_written(directory: Path) -> None:
    files = {path.name for path in (directory / "data-bin").iterdir()}
    splits = {
        f"{split}.xx-yy.{lang}.{end}"
        for split in ("train", "valid", "test")
        for lang in ("xx", "yy")
        for end in ("idx", "bin")
    }
    assert files == splits | {"dict.xx.txt", "dict.yy.txt"}
    for lang in ("xx", "yy"):
        pieces = [line.split()[0] for line in (directory / "data-bin" / f"dict.{lang}.txt").read_text().splitlines()]
        symbols = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
        store = IndexedStore(directory / "data-bin" / f"train.xx-yy.{lang}.idx", len(symbols))
        assert store.ids.dtype == np.uint16
        rows = [" ".join(symbols[i] for i in store[row]) for row in range(len(store))]
        assert rows == [f"{line} </s>" for line in lines(directory, "train", lang)]


def tasks(directory: Path, *overrides: str):
    """The same task over the text and over what was binarised."""
    for data in ("corpus", "data-bin"):
        cfg, plugins = configured([*TINY, *PIECES, f"task.data={directory / data}", "run_dir=run", *overrides])
        task = plugins["task"](plugins["tokenizer"], cfg.batching)
        task.prepare(directory / "cache")
        yield task


def test_batches_are_those_of_the_text(directory: Path) -> None:
    text, binarised = tasks(directory)
    assert binarised.source_vocabulary == text.source_vocabulary
    for split in ("train", "valid"):
        pairs = zip(*(task.get_batch_iterator(task.dataset(split), epoch=1) for task in (text, binarised)), strict=True)
        for ours, theirs in pairs:
            assert ours.src_tokens.tolist() == theirs.src_tokens.tolist()
            assert ours.target.tolist() == theirs.target.tolist()
    assert binarised.dataset("train").source.ids.filename == directory / "data-bin" / "train.xx-yy.xx.bin"
    assert binarised.references("test") == text.references("test")


def test_ids_are_looked_at_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, first), (_, second) = tasks(directory), tasks(directory)
    first.dataset("train")
    monkeypatch.setattr(IndexedStore, "_check_ids", None)
    assert len(second.dataset("train")) == 300


def test_a_large_one_is_batched_by_windows_and_by_other_processes(directory: Path) -> None:
    _, task = tasks(directory, "batching.window=64", "batching.num_workers=1")
    batches = list(task.get_batch_iterator(task.dataset("train"), epoch=1))
    assert sorted(i for batch in batches for i in batch.ids.tolist()) == list(range(300))


def test_several_directories_are_put_together(directory: Path, tmp_path: Path) -> None:
    again = tmp_path / "data-bin"
    again.mkdir()
    for path in (directory / "data-bin").iterdir():
        (again / path.name).write_bytes(path.read_bytes())
    both = f"task.data=[{directory / 'data-bin'},{again}]"
    cfg, plugins = configured([*TINY, *PIECES, both, "run_dir=run"])
    task = plugins["task"](plugins["tokenizer"], cfg.batching)
    task.prepare(tmp_path / "cache")
    assert len(task.dataset("train")) == 600
    assert task.dataset("train").target[300].tolist() == task.dataset("train").target[0].tolist()


def test_languages_are_those_of_the_files(directory: Path) -> None:
    nothing = ["task.source_lang=null", "task.target_lang=null"]
    _, binarised = tasks(directory, *nothing)
    assert (binarised.cfg.source_lang, binarised.cfg.target_lang) == ("xx", "yy")


def test_a_model_is_trained_on_it(directory: Path, tmp_path: Path) -> None:
    places = [f"task.data={directory / 'data-bin'}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    train.run(*configured([*TINY, *PIECES, *places, "trainer.max_update=5"]))
    restored = restore(tmp_path / "run")
    assert len(restored.task.source_vocabulary) % 8 == 0


def test_what_cannot_be_is_told(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds ids, and no text to learn a tokenizer from"):
        list(tasks(directory, "tokenizer=sentencepiece", "tokenizer.vocab_size=40"))
    with pytest.raises(DataError, match="dict.yy.txt: is another dictionary than"):
        list(tasks(directory, "task.joined_dictionary=true"))
    with pytest.raises(ConfigError, match="output: missing; format=fairseq writes a directory, output=DIR"):
        configured([*TEXT[:6], f"task.data={directory / 'corpus'}", "format=fairseq"], "preprocess")


def test_one_text(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    common = [
        "task=language_modeling",
        "tokenizer=pretokenized",
        "task.num_workers=1",
        f"cache_dir={tmp_path / 'cache'}",
    ]
    common += ["task.tokens_per_sample=16"]
    text = [*common, f"task.data={tmp_path / 'corpus'}", "task.lang=xx"]
    preprocess.run(*configured([*text, "format=fairseq", f"output={tmp_path / 'bin'}"], "preprocess"))
    assert {path.name for path in (tmp_path / "bin").iterdir()} >= {"train.idx", "train.bin", "dict.txt"}
    found = []
    for given in (text, [*common, f"task.data={tmp_path / 'bin'}"]):
        cfg, plugins = configured(given, "preprocess")
        task = plugins["task"](plugins["tokenizer"], cfg.batching)
        task.prepare(tmp_path / "cache")
        found.append([batch.target.tolist() for batch in task.get_batch_iterator(task.dataset("train"), epoch=1)])
    assert found[0] == found[1]
