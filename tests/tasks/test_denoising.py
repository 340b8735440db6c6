"""The denoising task: blocks, what noise leaves of them, and runs from raw text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.data.noise import Draws, Noise, NoiseConfig, span_lengths
from app.errors import ConfigError
from tests.runs import configured

LINES = ["d a b c", "a c", "", "b b d a", "c"]
MODEL = ["model=bart_tiny", "model.encoder_layers=1", "model.decoder_layers=1", "model.encoder_embed_dim=32"]
RUN = [*MODEL, "criterion=cross_entropy", "precision=fp32", "tokenizer=word", "task=denoising", "task.num_workers=1"]
RUN += ["task.tokens_per_sample=12", "trainer.num_threads=1"]
QUIET = [f"task.{name}=0" for name in ("mask", "mask_random", "insert", "rotate", "permute_sentences")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    for split in ("train", "valid"):
        (directory / f"{split}.xx").write_text("".join(f"{line}\n" for line in LINES))
        (directory / f"{split}.yy").write_text("".join(f"{line}\n" for line in LINES[::-1]).upper())
    return directory


def prepared(data: Path, tmp_path: Path, *overrides: str) -> Any:
    cfg, plugins = configured([*RUN, f"task.data={data}", f"run_dir={tmp_path}", "task.lang=xx", *overrides])
    task = plugins["task"](plugins["tokenizer"], cfg.batching)
    task.prepare(tmp_path / "cache")
    return task


def words(task: Any, rows: Any) -> list[str]:
    pieces = task.target_vocabulary.pieces
    return [" ".join(pieces[i].removeprefix("▁") for i in row if i != 1) for row in rows.tolist()]


def test_blocks_are_lines_between_bos_and_eos(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path, *QUIET)
    assert task.target_vocabulary.pieces[-1] == "<mask>"
    dataset = task.dataset("train")
    assert dataset.source_lengths.tolist() == dataset.target_lengths.tolist() == [8, 7]
    batch = dataset.collate(np.array([0, 1]))
    assert words(task, batch.target) == ["<s> d a b c a c </s>", "<s> b b d a c </s>"]
    assert words(task, batch.prev_output_tokens) == ["</s> <s> d a b c a c", "</s> <s> b b d a c"]
    assert batch.src_tokens.tolist() == batch.target.tolist()
    assert batch.num_tokens == 15


def test_noise_depends_on_seed_epoch_and_sample_alone(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path, "task.mask=0.5", "task.insert=0.3", "task.rotate=0.5")
    dataset = task.dataset("train")
    alone = dataset.in_epoch(3).collate(np.array([1])).src_tokens[0]
    both = dataset.in_epoch(3).collate(np.array([0, 1])).src_tokens[1]
    assert both[: len(alone)].tolist() == alone.tolist()
    epochs = {tuple(dataset.in_epoch(epoch).collate(np.array([0])).src_tokens[0].tolist()) for epoch in range(9)}
    assert len(epochs) > 5
    rows = {int(i): row for batch in task.get_batch_iterator(dataset, 3) for i, row in zip(batch.ids, batch.src_tokens)}
    assert rows[1][: len(alone)].tolist() == alone.tolist()


def test_permuted_sentences_are_lines(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path, *QUIET, "task.permute_sentences=1")
    dataset = task.dataset("train")
    seen = {words(task, dataset.in_epoch(epoch).collate(np.array([0])).src_tokens)[0] for epoch in range(20)}
    assert seen == {"<s> d a b c a c </s>", "<s> a c d a b c </s>"}


def test_what_noise_makes_longer_is_cut(data: Path, tmp_path: Path) -> None:
    task = prepared(data, tmp_path, *QUIET, "task.insert=1", "task.max_source_positions=12")
    batch = task.dataset("train").collate(np.array([0]))
    assert batch.src_tokens.shape == (1, 12)
    assert (batch.src_tokens[0, 0], batch.src_tokens[0, -1], batch.src_lengths[0]) == (0, 2, 12)


def test_languages_share_a_vocabulary_and_end_with_their_symbol(data: Path, tmp_path: Path) -> None:
    several = ["task.lang=null", "task.langs=[xx,yy]", "task.add_lang_token=true", "task.sample_break_mode=eos"]
    task = prepared(data, tmp_path, *QUIET, *several)
    assert task.target_vocabulary.pieces[-3:] == ["[xx]", "[yy]", "<mask>"]
    dataset = task.dataset("train")
    assert len(dataset) == 8  # an empty line is no sample
    batch = dataset.collate(np.array([4, 7]))
    assert batch.group == "yy"
    assert words(task, batch.target) == ["<s> C </s> [yy]", "<s> D A B C </s> [yy]"]
    assert words(task, batch.prev_output_tokens) == ["[yy] <s> C </s>", "[yy] <s> D A B C </s>"]
    batches = list(task.get_batch_iterator(dataset, 1))
    assert sorted(i for batch in batches for i in batch.ids.tolist()) == list(range(8))


def test_shares_of_spans() -> None:
    """A mean that fairseq never ends with, and one whose draws are counted."""
    assert float(span_lengths(30.0) @ torch.arange(len(span_lengths(30.0)), dtype=torch.float)) == pytest.approx(
        30, 1e-3
    )
    cfg = NoiseConfig(0, 0.3, "span-poisson", 3.5, 1, 0.0, 0.0, 0.0)
    tokens = torch.tensor([0, *range(4, 104), 2])
    kept = []
    for i in range(200):
        source = Noise(cfg, 104, 105)(tokens, torch.zeros(102, dtype=torch.bool), Draws.of(1, 1, i))
        kept.append(len(set(source.tolist()) - {104}) - 2)
    assert 70 < np.mean(kept) < 75  # spans may overlap


@pytest.mark.parametrize(
    ("fault", "overrides"),
    {
        "task.mask=1.5: must lie between 0 and 1": ["task.mask=1.5"],
        "task.replace_length=2: must be -1, 0 or 1": ["task.replace_length=2"],
        "task.mask_length=words: must be one of subword, word, span-poisson": ["task.mask_length=words"],
        "take the place of lang=xx": ["task.langs=[xx,xx]"],
        "task.lang=zz": ["task.lang=zz"],
        "tokens_per_sample=2": ["task.tokens_per_sample=2"],
    }.items(),
)
def test_faults(data: Path, fault: str, overrides: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        configured([*RUN, f"task.data={data}", "task.lang=xx", *overrides])
    assert fault in str(error.value)


def test_spans_need_words(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not say where words start"):
        prepared(data, tmp_path, "tokenizer=byte")


def test_trains_from_raw_text_and_restores_lines(data: Path, tmp_path: Path) -> None:
    from app.generate import run as generate
    from app.train import run

    given = [f"task.data={data}", "task.lang=xx", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    limits = [
        "optimizer.lr=5e-3",
        "lr_scheduler.warmup_updates=10",
        "trainer.max_update=60",
        "batching.max_tokens=1024",
    ]
    mode = ["task.sample_break_mode=eos", "trainer.validate_interval=0", "trainer.validate_interval_updates=30"]
    run(*configured([*RUN, *given, *limits, *mode]))
    logs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in logs]
    assert losses[-1] < 0.8 * losses[0]
    (tmp_path / "in").write_text("d a b c\na c\n")
    out = tmp_path / "out"
    options = [f"checkpoint={tmp_path / 'run'}", f"input={tmp_path / 'in'}", f"output_file={out}", "device=cpu"]
    generate(*configured([*options, "search.max_len_b=10"], "generate"))
    assert len(out.read_text().splitlines()) == 2
