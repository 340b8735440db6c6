"""The masked language modelling task: from one text file to masked blocks and a trained model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data.batch import Batch
from app.errors import CheckpointError, ConfigError
from app.tasks.masked_lm import MaskedLM, MaskedLMConfig
from app.tokenizers.pretokenized import Pretokenized, PretokenizedConfig
from app.tokenizers.word import Word, WordConfig
from tests.runs import batching_config, configured

BATCHING = batching_config(max_tokens=64, max_tokens_valid=64)
CFG = MaskedLMConfig(
    data=None,
    lang=None,
    train_split="train",
    sample_break_mode="eos",
    tokens_per_sample=16,
    threshold=0,
    nwords=0,
    on_bad_line="error",
    num_workers=1,
    max_positions=16,
    mask_prob=0.5,
    leave_unmasked_prob=0.0,
    random_token_prob=0.0,
    freq_weighted_replacement=False,
    mask_whole_words=False,
    mask_multiple_length=1,
    mask_stdev=0.0,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "train.txt").write_text("un-do, re-do one-by-one!\n" * 9)
    (directory / "valid.txt").write_text("re-do\none-by-one\n")
    return directory


def task_of(cfg: MaskedLMConfig) -> MaskedLM:
    return MaskedLM(cfg, lambda: Word(WordConfig()), BATCHING)


def prepared(data: Path, cache: Path, **changes: Any) -> MaskedLM:
    cfg = replace(CFG, data=str(data), **changes)
    assert list(cfg.check()) == []
    task = task_of(cfg)
    task.prepare(cache)
    return task


def batches(task: MaskedLM, split: str, epoch: int | None, skip: int = 0) -> list[Batch]:
    itr = task.get_batch_iterator(task.dataset(split), epoch)
    itr.load_state_dict({"epoch": epoch or 0, "num_samples": skip})
    return list(itr)


def shown(epoch: list[Batch]) -> list[list[list[int]]]:
    return [batch.src_tokens.tolist() for batch in epoch]


def test_what_is_hidden_is_asked(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path / "cache")
    assert task.source_vocabulary.pieces[-1] == "<mask>"
    mask = len(task.source_vocabulary) - 1
    batch = task.dataset("train").collate(np.arange(9))
    text = batch.src_tokens.where(batch.target.eq(1), batch.target)
    assert text.tolist() == [[0, *task.text.encode_lines(["un-do, re-do one-by-one!"])[0].tolist()]] * 9
    assert bool((batch.src_tokens.eq(mask) == batch.target.ne(1)).all())
    assert 7 * 9 <= int(batch.target.ne(1).sum()) <= 8 * 9  # half of 15 tokens, rounded at random
    assert batch.num_tokens == 15 * 9


def test_every_epoch_masks_anew_and_a_resumed_one_alike(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path / "cache")
    first = batches(task, "train", 1)
    assert len({str(batch.src_tokens.tolist()) for batch in first}) > 1
    assert shown(first) == shown(batches(task, "train", 1))
    again = {int(i): row for batch in batches(task, "train", 2) for i, row in zip(batch.ids, batch.src_tokens.tolist())}
    before = {int(i): row for batch in first for i, row in zip(batch.ids, batch.src_tokens.tolist())}
    assert before.keys() == again.keys()
    assert before != again
    assert shown(batches(task, "train", 1, skip=len(first[0]))) == shown(first[1:])
    assert shown(batches(task, "valid", None)) == shown(batches(task, "valid", None))


def test_whole_words(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path / "cache", mask_whole_words=True)
    begins = task.text.word_begins()
    batch = task.dataset("train").collate(np.arange(9))
    asked, starts = batch.target.ne(1), begins[batch.src_tokens.where(batch.target.eq(1), batch.target).numpy()]
    assert 0 < int(asked.sum()) < asked.numel()
    for row, start in zip(asked.numpy(), starts):
        words = np.split(row, np.flatnonzero(start)[1:])
        assert all(word.all() or not word.any() for word in words)
        assert [len(word) for word in words] == [1, 4, 3, 6, 1]  # bos, `un-do,`, `re-do`, `one-by-one!`, eos


def test_tokenizers_without_words_are_refused(data: Path, tmp_path: Path) -> None:
    task = MaskedLM(
        replace(CFG, data=str(data), mask_whole_words=True), lambda: Pretokenized(PretokenizedConfig()), BATCHING
    )
    with pytest.raises(ConfigError, match="do not say where words start"):
        task.prepare(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


FAULTS = [
    ({"mask_prob": 0.0}, "mask_prob=0.0: must be greater than 0"),
    ({"random_token_prob": 0.6, "leave_unmasked_prob": 0.5}, "together they must not be more than 1"),
    ({"max_positions": 5}, "tokens_per_sample=16: must not be more than max_positions=5"),
    ({"tokens_per_sample": 1}, "must be 2 or more, for bos and a token"),
    ({"mask_multiple_length": 0}, "mask_multiple_length=0: must be greater than 0"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=str)
def test_settings_are_checked(change: dict[str, Any], message: str) -> None:
    assert message in "\n".join(replace(CFG, **change).check())


def test_a_vocabulary_without_a_mask_is_refused(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path / "cache")
    task.save(tmp_path / "run")
    task_of(CFG).load(tmp_path / "run")
    pieces = tmp_path / "run" / "text" / "dict.txt"
    pieces.write_text(pieces.read_text().replace("<mask>", "masc"))
    with pytest.raises(CheckpointError, match="the vocabulary has no <mask>"):
        task_of(CFG).load(tmp_path / "run")


RUN = [
    "task=masked_lm",
    "model=roberta_tiny",
    "criterion=masked_lm",
    "tokenizer=word",
    "task.num_workers=1",
    "task.tokens_per_sample=32",
    "precision=fp32",
    "model.dropout=0",
    "model.attention_dropout=0",
    "lr_scheduler.warmup_updates=20",
    "optimizer.lr=5e-3",
    "batching.max_tokens=1024",
    "trainer.log_interval=10",
    "trainer.num_threads=1",
    "trainer.max_update=100",
]


def test_trains_from_raw_text(tmp_path: Path) -> None:
    from app.assembly import restore
    from app.train import run

    data = tmp_path / "text"
    data.mkdir()
    (data / "train.txt").write_text("one two three four five\nfive four three two one\n" * 200)
    (data / "valid.txt").write_text("five four three two one\none two three four five\n" * 20)
    run(*configured([*RUN, f"task.data={data}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row for row in rows if row["kind"] == "valid"][-1]["ppl"] < 2  # 6 when only frequencies are known
    restored = restore(tmp_path / "run")
    with pytest.raises(ConfigError, match="task masked_lm generates no text"):
        restored.task.build_generator([restored.model], None)
    assert restored.task.references("valid") is None


KINDS = [
    (["model=transformer_tiny"], "task MaskedLM wants a model with no decoder, which Transformer has"),
    (["criterion=cross_entropy"], "CrossEntropy is for tokens, and task MaskedLM asks for masked tokens"),
    (["task=language_modeling", "criterion=cross_entropy"], "with a decoder, which Roberta does not have"),
]


@pytest.mark.parametrize(("change", "message"), KINDS, ids=str)
def test_what_does_not_fit_together_is_refused(data: Path, change: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(["task=masked_lm", "model=roberta_tiny", "criterion=masked_lm", f"task.data={data}", *change])
