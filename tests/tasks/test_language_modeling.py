"""The language modelling task: from one text file to blocks, a trained model, and continued lines."""

import gzip
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.errors import DataError
from app.tasks.language_modeling import LanguageModeling, LanguageModelingConfig
from app.tokenizers.pretokenized import Pretokenized, PretokenizedConfig
from tests.runs import batching_config, configured

TRAIN = ["a b c", "d", "", "a a b d", "c"]
BATCHING = batching_config(max_tokens=16, max_tokens_valid=16)
CFG = LanguageModelingConfig(
    data=None,
    lang=None,
    train_split="train",
    sample_break_mode="none",
    tokens_per_sample=6,
    context_window=0,
    self_target=False,
    future_target=False,
    past_target=False,
    add_bos_token=False,
    max_target_positions=6,
    threshold=0,
    nwords=0,
    on_bad_line="error",
    num_workers=1,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "train.txt").write_text("".join(f"{line}\n" for line in TRAIN))
    (directory / "valid.txt.gz").write_bytes(gzip.compress(b"a b c d\nb a\n"))
    return directory


def prepared(data: Any, cache: Path, **changes: Any) -> LanguageModeling:
    cfg = replace(CFG, data=data if isinstance(data, list) else str(data), **changes)
    assert list(cfg.check()) == []
    task = LanguageModeling(cfg, lambda: Pretokenized(PretokenizedConfig()), BATCHING)
    task.prepare(cache)
    return task


def words(task: LanguageModeling, rows: Any) -> list[str]:
    return [" ".join(task.target_vocabulary.pieces[i] for i in row) for row in rows.tolist()]


def test_blocks_of_the_text(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path / "cache")
    assert task.source_vocabulary is task.target_vocabulary
    batch = task.dataset("train").collate(np.arange(3))
    assert words(task, batch.target) == [
        "a b c </s> d </s>",
        "</s> a a b d </s>",
        "c </s> <pad> <pad> <pad> <pad>",
    ]
    assert words(task, batch.src_tokens)[1:] == ["</s> </s> a a b d", "</s> c <pad> <pad> <pad> <pad>"]
    assert batch.num_tokens == 14
    assert task.splits() == ["train", "valid"]


def test_an_epoch_has_every_token_once_and_goes_on_anywhere(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path / "cache", tokens_per_sample=3)
    dataset = task.dataset("train")
    whole = list(task.get_batch_iterator(dataset, 1))
    assert sum(batch.num_tokens for batch in whole) == 14
    first = task.get_batch_iterator(dataset, 1)
    next(iter(first))
    second = task.get_batch_iterator(dataset, 1)
    second.load_state_dict(first.state_dict())
    assert [batch.ids.tolist() for batch in second] == [batch.ids.tolist() for batch in whole[1:]]


def test_context_is_for_evaluation_alone(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path / "cache", context_window=2)
    assert task.dataset("train").source_lengths.tolist() == [6, 6, 2]
    valid = task.dataset("valid")
    assert valid.source_lengths.tolist() == [4, 6]
    batch = valid.collate(np.arange(2))
    assert words(task, batch.src_tokens)[1] == "b c d </s> b a"
    assert words(task, batch.target)[1] == "<pad> <pad> </s> b a </s>"
    assert batch.num_tokens == 8


def test_long_lines_are_counted_and_said(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = prepared(data, tmp_path / "cache", sample_break_mode="eos", tokens_per_sample=4, max_target_positions=4)
    with caplog.at_level(logging.INFO):
        assert len(task.dataset("train")) == 4
    assert "train: 4 blocks; left out: 1 over max_target_positions=4" in caplog.text


def test_directories_are_mixed_by_weight_and_share_no_block(data: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "train.txt").write_text("d d\n")
    task = prepared([str(data), {"path": str(more), "weight": 2}], tmp_path / "cache")
    dataset = task.dataset("train")
    assert dataset.slices.tolist() == [[0, 6], [6, 12], [12, 14], [14, 17]]
    assert dataset.weights.tolist() == [1, 1, 1, 2]


FAULTS = [
    ({"data": "DATA/nowhere"}, "data=.*nowhere: no such directory"),
    ({"data": "DATA/.."}, r"has no text \(SPLIT.LANG or SPLIT.LANG.gz\)"),
    ({"lang": "de"}, "lang=de: .* has no SPLIT.de; its languages are txt"),
    ({"sample_break_mode": "line"}, "sample_break_mode=line: must be one of none, complete"),
    ({"context_window": 6}, "context_window=6: must leave room in tokens_per_sample=6"),
    ({"max_target_positions": 5}, "tokens_per_sample=6: must not be more than max_target_positions=5"),
    ({"self_target": True, "past_target": True}, "a model predicts one of them"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=str)
def test_settings_are_checked(data: Path, change: dict[str, Any], message: str) -> None:
    given = {k: v.replace("DATA", str(data)) if isinstance(v, str) else v for k, v in change.items()}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(replace(CFG, **{"data": str(data)} | given).check()))


def test_the_language_is_guessed_where_one_exists(data: Path, tmp_path: Path) -> None:
    (data / "train.de").write_text("x\n")
    cfg = replace(CFG, data=str(data))
    assert "set lang to one of them" in "".join(cfg.check())
    assert list(replace(cfg, lang="txt").check_split("valid")) == []
    assert "no valid.de; the splits are train" in "".join(replace(cfg, lang="de").check_split("valid"))
    with pytest.raises(DataError, match=r"task.lang=null: train has de, txt"):
        LanguageModeling(cfg, lambda: Pretokenized(PretokenizedConfig()), BATCHING).splits()


def loaded(cfg: LanguageModelingConfig, run: Path) -> LanguageModeling:
    task = LanguageModeling(cfg, lambda: Pretokenized(PretokenizedConfig()), BATCHING)
    task.load(run)
    return task


def test_a_learnt_task_needs_no_training_split(data: Path, tmp_path: Path) -> None:
    prepared(data, tmp_path / "cache").save(tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    (other / "test.txt").write_text("a b\n")
    cfg = replace(CFG, data=str(other))
    assert list(cfg.check()) == []
    assert "no train.txt; the splits are test" in "".join(cfg.check_split("train"))
    task = loaded(cfg, tmp_path / "run")
    task.prepare(tmp_path / "cache")
    assert len(task.dataset("test")) == 1


def test_the_guessed_language_stays_that_of_the_run(data: Path, tmp_path: Path) -> None:
    prepared(data, tmp_path / "cache").save(tmp_path / "run")
    (data / "train.de").write_text("x\n")
    assert loaded(replace(CFG, data=str(data)), tmp_path / "run").splits() == ["train", "valid"]


RUN = [
    "task=language_modeling",
    "model=transformer_lm_gpt2_tiny",
    "criterion=cross_entropy",
    "tokenizer=word",
    "task.num_workers=1",
    "task.tokens_per_sample=32",
    "task.context_window=8",
    "precision=fp32",
    "lr_scheduler.warmup_updates=20",
    "optimizer.lr=1e-2",
    "batching.max_tokens=512",
    "trainer.log_interval=10",
    "trainer.num_threads=1",
    "trainer.max_update=120",
]


def test_trains_from_raw_text_and_continues_lines(tmp_path: Path) -> None:
    from app.assembly import restore
    from app.search.beam import BeamConfig, BeamSearch
    from app.train import run

    data = tmp_path / "text"
    data.mkdir()
    (data / "train.txt").write_text("one two three four five\nfive four three two one\n" * 100)
    (data / "valid.txt").write_text("five four three two one\none two three four five\n" * 10)
    paths = [f"task.data={data}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    run(*configured([*RUN, *paths]))

    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    valid = [row for row in rows if row["kind"] == "valid"]
    assert valid[-1]["ppl"] < 1.5  # one choice of two a line

    restored = restore(tmp_path / "run")
    cfg = configured([*RUN, *paths])[0].search
    search = BeamSearch(
        BeamConfig(**{k: v for k, v in cfg.items() if k != "_target_"}), restored.task.target_vocabulary
    )
    with torch.inference_mode():
        found = restored.task.build_generator([restored.model], search).generate(["one two", "", "five four three"])
    assert [best[0].text for best in found] == ["one two three four five", "", "five four three two one"]
