"""What stands beside the sentences of a pair: word alignments, bos, and the symbols of languages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.data.frame import Frame
from app.errors import ConfigError, DataError
from tests.runs import configured, train

ALIGN = ["model=transformer_align", "model.encoder_layers=1", "model.decoder_layers=2", "model.alignment_layer=1"]
ALIGN += ["model.encoder_embed_dim=32", "model.encoder_ffn_embed_dim=64", "model.encoder_attention_heads=2"]
ALIGN += ["task.load_alignments=true", "criterion=label_smoothed_cross_entropy_with_alignment"]
MBART = ["task.joined_dictionary=true", "task.langs=[xx,yy]", "task.prepend_bos=true"]


def write(directory: Path, split: str, source: list[str], target: list[str], align: list[str] | None = None) -> Path:
    directory.mkdir(exist_ok=True)
    for name, lines in (("xx", source), ("yy", target), ("xx-yy.align", align)):
        if lines is not None:
            (directory / f"{split}.{name}").write_text("".join(f"{line}\n" for line in lines))
    return directory


def prepared(data: Path, tmp_path: Path, *overrides: str) -> Any:
    given = ["task.source_lang=xx", "task.target_lang=yy", "tokenizer=word", "task.num_workers=1", *overrides]
    cfg, plugins = configured([f"task.data={data}", f"run_dir={tmp_path / 'run'}", *given])
    task = plugins["task"](plugins["tokenizer"], cfg.batching)
    task.prepare(tmp_path / "cache")
    return task


def words(task: Any, row: Any) -> str:
    return " ".join(task.target_vocabulary.pieces[i].removeprefix("▁") for i in row.tolist() if i != 1)


def data_of(tmp_path: Path, *align: str) -> Path:
    for split in ("train", "valid"):
        write(tmp_path / "data", split, ["a b c", "d", "a d"], ["A B", "D E", "A"], list(align) or None)
    return tmp_path / "data"


def test_alignments_are_positions_of_the_batch(tmp_path: Path) -> None:
    data = data_of(tmp_path, "0-0 1-1 2-1", "0-0 0-1", "")
    task = prepared(data, tmp_path, "task.load_alignments=true", *ALIGN[-1:], *ALIGN[:6])
    batch = task.dataset("train").collate(np.array([1, 0, 2]))
    assert batch.target.shape == (3, 3)
    assert batch.alignments.tolist() == [[0, 0], [0, 1], [0, 3], [1, 4], [2, 4]]
    assert batch.align_weights.tolist() == [1, 1, 1, 0.5, 0.5]
    assert batch.to(torch.device("meta")).alignments.device.type == "meta"
    framed = prepared(data, tmp_path, *ALIGN, *MBART).dataset("train").collate(np.array([1, 0, 2]))
    width = framed.target.size(1)
    assert framed.alignments.tolist() == [[1, 1], [1, 2], [1, width + 1], [2, width + 2], [3, width + 2]]


@pytest.mark.parametrize(
    ("align", "fault"),
    [
        (["0-0", "0 0", ""], "'0 0' is not `0-0 1-2 ...`"),
        (["0-0", "1-0", ""], "train.xx-yy.align: pair 2 .* aligns source piece 1, and has 1"),
        (["0-2", "0-0", ""], "pair 1 .* aligns target piece 2, and has 2"),
        (["0-0", "0-0"], "has 3 lines and .* has 2"),
    ],
)
def test_faulty_alignments(align: list[str], fault: str, tmp_path: Path) -> None:
    task = prepared(data_of(tmp_path, *align), tmp_path, *ALIGN)
    with pytest.raises(DataError, match=fault):
        task.dataset("train")


def test_sides_say_their_languages(tmp_path: Path) -> None:
    task = prepared(data_of(tmp_path), tmp_path, *MBART)
    assert task.target_vocabulary.pieces[-3:] == ["[xx]", "[yy]", "<mask>"]
    dataset = task.dataset("train")
    assert (dataset.source_lengths.tolist(), dataset.target_lengths.tolist()) == ([6, 4, 5], [5, 5, 4])
    batch = dataset.collate(np.array([0, 1]))
    assert [words(task, row) for row in batch.src_tokens] == ["<s> a b c </s> [xx]", "<s> d </s> [xx]"]
    assert [words(task, row) for row in batch.target] == ["<s> A B </s> [yy]", "<s> D E </s> [yy]"]
    assert words(task, batch.prev_output_tokens[0]) == "[yy] <s> A B </s>"
    assert batch.src_lengths.tolist() == [6, 4]
    assert batch.num_tokens == 10


def test_a_frame_of_unequal_rows() -> None:
    rows, lengths = np.array([[5, 6, 2], [7, 2, 1]]), np.array([3, 2])
    assert [each.tolist() for each in Frame(source_end=(9,)).source(rows, lengths)] == [[[5, 6, 9], [7, 9, 1]], [3, 2]]
    framed = Frame(target_start=(0,), target_end=(2, 8)).target(rows, lengths)
    assert [each.tolist() for each in framed] == [[[0, 5, 6, 2, 8], [0, 7, 2, 8, 1]], [5, 4]]


def test_a_language_without_a_symbol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the vocabulary has no \[yy\]"):
        prepared(data_of(tmp_path), tmp_path, *MBART, "task.langs=[xx]")


def test_learns_alignments_and_prints_them(tmp_path: Path) -> None:
    """Targets are their sources in capitals: the taught head is right about almost every piece."""
    from app.generate import run as generate
    from tests.runs import write_corpus

    corpus = write_corpus(tmp_path / "corpus")
    for split in ("train", "valid", "test"):
        lines = (corpus / f"{split}.xx").read_text().splitlines()
        (corpus / f"{split}.yy").write_text("".join(f"{line}\n" for line in lines).upper())
        aligned = [" ".join(f"{i}-{i}" for i in range(len(line.split()))) for line in lines]
        (corpus / f"{split}.xx-yy.align").write_text("".join(f"{line}\n" for line in aligned))
    limits = ["trainer.max_update=150", "criterion.alignment_lambda=1.0", "trainer.validate_interval=0"]
    run_dir = train(tmp_path, *ALIGN, *limits, "trainer.validate_interval_updates=150")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["alignment_loss"] < 0.4 * rows[0]["alignment_loss"]
    out = tmp_path / "out.jsonl"
    options = [f"checkpoint={run_dir}", "split=test", f"output_file={out}", "output=jsonl", "device=cpu", "scorer=[]"]
    generate(*configured([*options, "search.print_alignment=true", "num_threads=1"], "generate"))
    right = total = 0
    for line in out.read_text().splitlines():
        best = json.loads(line)["translations"][0]
        right += sum(source == target for target, source in enumerate(best["alignment"]))
        total += len(best["alignment"])
    assert right > 0.6 * total


def test_starts_from_a_denoising_run(tmp_path: Path) -> None:
    """mBART in small: two languages restored, then one translated to the other with the same vocabulary."""
    from app.run_config import stored
    from app.train import run
    from tests.runs import write_corpus

    corpus = write_corpus(tmp_path / "corpus")
    shape = ["model=bart_tiny", "model.encoder_layers=1", "model.decoder_layers=1", "model.encoder_embed_dim=32"]
    shape += ["tokenizer=word", "precision=fp32", "trainer.num_threads=1", "trainer.decode_valid=false"]
    shape += [f"task.data={corpus}", f"cache_dir={tmp_path / 'cache'}", "trainer.max_update=4", "task.num_workers=1"]
    shape += ["task.max_source_positions=64", "task.max_target_positions=64", "task.langs=[xx,yy]"]
    first = ["task=denoising", "task.tokens_per_sample=40", "task.add_lang_token=true", "criterion=cross_entropy"]
    run(*configured([*shape, *first, f"run_dir={tmp_path / 'bart'}"]))
    second = ["task.source_lang=xx", "task.target_lang=yy", "task.prepend_bos=true", f"run_dir={tmp_path / 'run'}"]
    run(*configured([*shape, *second, f"checkpoint.finetune_from={tmp_path / 'bart'}"]))
    assert stored(tmp_path / "run" / "config.yaml")["task"]["prepend_bos"]
    dictionaries = [tmp_path / "bart/task/text/dict.txt", tmp_path / "run/task/joined/dict.txt"]
    assert dictionaries[0].read_text() == dictionaries[1].read_text()
    from app.hub import load

    model = load(tmp_path / "run", device="cpu")
    assert len(model.translate(["ba de", ""])) == 2
    (best,) = model.hypotheses(["ba de"], max_len_b=8)[0]
    assert "[yy]" not in best.text
    (scored,) = model.score(["ba de"], ["DE BA"])
    assert len(scored.positional_scores) == 5  # bos, two pieces, eos, [yy]
