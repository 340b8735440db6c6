"""Sentences with classes, numbers and candidates: from text files to rows, trained models and metrics."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.data.sentences import Join
from app.errors import CheckpointError, ConfigError, DataError
from app.tasks.sentence_prediction import SentencePrediction, SentencePredictionConfig
from app.tasks.sentence_ranking import SentenceRanking, SentenceRankingConfig
from app.tokenizers.pretokenized import Pretokenized, PretokenizedConfig
from tests.runs import batching_config, configured

BATCHING = batching_config(max_tokens=32, max_tokens_valid=32)
TEXTS = {
    "data": None,
    "train_split": "train",
    "num_classes": 0,
    "init_token": 0,
    "separator_token": 2,
    "max_positions": 12,
    "shorten_method": "none",
    "threshold": 0,
    "nwords": 0,
    "num_workers": 1,
}
PREDICTION: dict[str, Any] = {**TEXTS, "classification_head_name": "head", "regression_target": False}
RANKING: dict[str, Any] = {**TEXTS, "ranking_head_name": "head", "max_option_length": None}
COLUMNS = {
    "input0": ["a b", "c", "", "a c"],
    "input1": ["d", "c a b", "b", "a b c d"],
    "label": ["yes", "no", "no", "maybe"],
}


def write(directory: Path, split: str = "train", **columns: list[str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, lines in columns.items():
        (directory / f"{split}.{name}").write_text("".join(f"{line}\n" for line in lines))
    return directory


def predicting(data: Path, **changes: Any) -> SentencePrediction:
    cfg = SentencePredictionConfig(**{**PREDICTION, "data": str(data), **changes})
    assert list(cfg.check()) == []
    return SentencePrediction(cfg, lambda: Pretokenized(PretokenizedConfig()), BATCHING)


def ranking(data: Path, **changes: Any) -> SentenceRanking:
    cfg = SentenceRankingConfig(**{**RANKING, "data": str(data), **changes})
    assert list(cfg.check()) == []
    return SentenceRanking(cfg, lambda: Pretokenized(PretokenizedConfig()), BATCHING)


def prepared(task: Any, tmp_path: Path) -> Any:
    task.prepare(tmp_path / "cache")
    return task


def words(task: Any, rows: torch.Tensor) -> list[str]:
    return [" ".join(task.source_vocabulary.pieces[i] for i in row if i != 1) for row in rows.tolist()]


def test_pairs_become_rows_and_classes(tmp_path: Path) -> None:
    task = prepared(predicting(write(tmp_path / "data", **COLUMNS)), tmp_path)
    assert task.classes == ["maybe", "no", "yes"]
    assert task.classification_heads == {"head": 3}
    dataset = task.dataset("train")
    batch = dataset.collate(np.arange(4))
    rows = ["a b </s> </s> d", "c </s> </s> c a b", "</s> </s> b", "a c </s> </s> a b c d"]
    assert words(task, batch.src_tokens) == [f"<s> {row} </s>" for row in rows]
    assert batch.src_lengths.tolist() == dataset.source_lengths.tolist() == [7, 8, 5, 10]
    assert batch.target.tolist() == [2, 1, 1, 0]
    assert batch.num_tokens == 30
    assert task.splits() == ["train"]
    assert sorted(i for each in task.get_batch_iterator(dataset, 1) for i in each.ids.tolist()) == [0, 1, 2, 3]


def test_numbers_order_classes_and_a_single_text_has_no_separator(tmp_path: Path) -> None:
    data = write(tmp_path / "data", input0=["a", "b", "c"], label=["10", "2", "10"])
    task = prepared(predicting(data, init_token=None), tmp_path)
    assert task.classes == ["2", "10"]
    assert words(task, task.dataset("train").collate(np.arange(3)).src_tokens) == ["a </s>", "b </s>", "c </s>"]


def test_a_regression_has_numbers(tmp_path: Path) -> None:
    data = write(tmp_path / "data", input0=["a", "b"], label=["-1.5", "2"])
    task = prepared(predicting(data, regression_target=True), tmp_path)
    assert task.classification_heads == {"head": 1}
    assert task.dataset("train").collate(np.arange(2)).target.tolist() == [-1.5, 2.0]


def test_long_rows_are_left_out_or_cut(tmp_path: Path) -> None:
    data = write(tmp_path / "data", **COLUMNS)
    left = prepared(predicting(data, max_positions=7), tmp_path).dataset("train")
    assert left.rows.tolist() == [0, 2]
    assert left.left_out == {"over max_positions=7": 2}
    cut = prepared(predicting(data, max_positions=7, shorten_method="truncate"), tmp_path)
    assert cut.dataset("train").source_lengths.tolist() == [7, 7, 5, 7]
    assert words(cut, cut.dataset("train").collate(np.array([3])).src_tokens) == ["<s> a c </s> </s> a b"]
    with pytest.raises(DataError, match="no sample is left to use .4 over max_positions=4.; check task.data"):
        prepared(predicting(data, max_positions=4), tmp_path).dataset("train")


def test_lengths_are_those_of_rows() -> None:
    texts = [np.array([5, 6, 2]), np.array([7, 2])]
    for join in (Join(0, 2, None), Join(None, None, None), Join(0, None, 4), Join(None, 2, 5, 2), Join(0, 2, None, 2)):
        lengths = join.lengths([np.array([len(text)]) for text in texts])
        assert lengths.tolist() == [len(join.row(texts))]


def test_candidates_stand_side_by_side(tmp_path: Path) -> None:
    columns = {"input0": ["q", "r"], "input1": ["a b c", "d"], "input2": ["b", "a"], "label": ["0", "1"]}
    task = prepared(ranking(write(tmp_path / "data", **columns), max_option_length=3), tmp_path)
    batch = task.dataset("train").collate(np.arange(2))
    assert words(task, batch.src_tokens) == [
        "<s> a b </s> q </s>",
        "<s> b </s> </s> q </s>",
        "<s> d </s> </s> r </s>",
        "<s> a </s> </s> r </s>",
    ]
    assert batch.target.tolist() == [0, 1]
    assert len(batch) == 2
    assert task.dataset("train").source_lengths.tolist() == [12, 12]


def test_candidates_need_no_question(tmp_path: Path) -> None:
    columns = {"input1": ["a"], "input2": ["b"], "input3": ["c"], "label": ["2"]}
    task = prepared(ranking(write(tmp_path / "data", **columns)), tmp_path)
    assert words(task, task.dataset("train").collate(np.arange(1)).src_tokens) == [f"<s> {x} </s>" for x in "abc"]


FAULTS = [
    ({"label": ["yes", "no"]}, "train.input0 has 4 lines and .*train.label has 2; give a label for each"),
    ({"input1": ["d"]}, "train.input0 has 4 lines and .*train.input1 has 1"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=str)
def test_columns_of_other_lengths_are_told(tmp_path: Path, change: dict[str, list[str]], message: str) -> None:
    task = prepared(predicting(write(tmp_path / "data", **COLUMNS | change)), tmp_path)
    with pytest.raises(DataError, match=message):
        task.dataset("train")


def test_labels_are_checked_where_they_stand(tmp_path: Path) -> None:
    data = write(tmp_path / "data", **COLUMNS)
    write(data, "valid", **COLUMNS | {"label": ["yes", "yse", "no", "no"]})
    with pytest.raises(DataError, match=r"valid.label:2: 'yse' is not one of maybe, no, yes; mend it, or"):
        prepared(predicting(data), tmp_path).dataset("valid")
    with pytest.raises(DataError, match=r"valid.label:1: 'yes' is not a number"):
        prepared(predicting(data, regression_target=True), tmp_path).dataset("valid")
    with pytest.raises(DataError, match="train.label has 3 classes .maybe, no, yes., not task.num_classes=2"):
        prepared(predicting(data, num_classes=2), tmp_path)
    write(data, input2=["a"] * 4)
    with pytest.raises(DataError, match="has the candidates input1, input2; give task.num_classes=3 of them"):
        prepared(ranking(data, num_classes=3), tmp_path)
    write(data, input2=["a"] * 4, label=["0", "1", "2", "0"])
    with pytest.raises(DataError, match="train.label:3: '2' is not the number of a candidate, 0 to 1; mend it"):
        prepared(ranking(data), tmp_path).dataset("train")


def test_settings_are_checked(tmp_path: Path) -> None:
    data = write(tmp_path / "data", **COLUMNS)
    cfg = SentencePredictionConfig(**{**PREDICTION, "data": str(data)})
    assert list(cfg.check_split("train")) == []
    assert "no valid.input0 with valid.label; the splits are train" in "".join(cfg.check_split("valid"))
    assert "nothing to learn from" in "".join(replace(cfg, data=None).check_split("train"))
    wrong = replace(cfg, data=str(tmp_path / "no"), shorten_method="cut", init_token=-1, max_positions=0)
    faults = "\n".join(wrong.check())
    for name in ("data=.*no such directory", "shorten_method=cut", "init_token=-1", "max_positions=0"):
        assert re.search(name, faults)
    (tmp_path / "empty").mkdir()
    assert "has no SPLIT.label" in "".join(replace(cfg, data=str(tmp_path / "empty")).check())
    assert "a regression has one number" in "".join(replace(cfg, regression_target=True, num_classes=3).check())
    both = SentenceRankingConfig(**{**RANKING, "num_classes": 1, "max_option_length": 0})
    assert len(list(both.check())) == 2
    alone = SentenceRankingConfig(**{**RANKING, "data": str(data)})
    assert "to choose from; has train.input0, train.input1" in "".join(alone.check())


def test_a_run_keeps_its_classes_unless_the_head_is_new(tmp_path: Path) -> None:
    task = prepared(predicting(write(tmp_path / "data", **COLUMNS)), tmp_path)
    (tmp_path / "run").mkdir()
    task.save(tmp_path / "run")
    other = write(tmp_path / "other", **COLUMNS | {"label": ["no", "no", "yes", "yes"]})
    same, new = predicting(other), predicting(other, classification_head_name="new")
    for each in (same, new):
        each.load(tmp_path / "run")
        assert each.source_vocabulary == task.source_vocabulary
    assert same.classification_heads == {"head": 3}
    assert not new.classification_heads
    assert prepared(same, tmp_path).classes == ["maybe", "no", "yes"]
    assert prepared(new, tmp_path).classification_heads == {"new": 2}
    (tmp_path / "run" / "sentences.json").write_text("[")
    with pytest.raises(CheckpointError, match="sentences.json: is damaged"):
        same.load(tmp_path / "run")


RUN = [
    "model=roberta_tiny",
    "tokenizer=word",
    "task.num_workers=1",
    "precision=fp32",
    "model.dropout=0",
    "model.attention_dropout=0",
    "lr_scheduler.warmup_updates=10",
    "optimizer.lr=3e-3",
    "batching.max_tokens=512",
    "trainer.log_interval=10",
    "trainer.num_threads=1",
    "trainer.max_update=40",
    "trainer.validate_interval_updates=20",
    "checkpoint.mode=max",
]


def trained(tmp_path: Path, name: str, *overrides: str) -> tuple[Path, dict[str, Any]]:
    """A run, and the numbers of its last validation."""
    from app.train import run

    places = [f"task.data={tmp_path / name}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    run(*configured([f"task={name}", f"criterion={name}", *RUN, *places, *overrides]))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    return tmp_path / "run", [row for row in rows if row["kind"] == "valid"][-1]


def evaluated(run_dir: Path, capsys: Any) -> dict[str, Any]:
    from app import evaluate

    capsys.readouterr()
    given = [f"checkpoint={run_dir}", f"cache_dir={run_dir.parent / 'cache'}", "output=json", "num_threads=1"]
    evaluate.run(*configured(given, "evaluate"))
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_learns_classes_measures_and_predicts(tmp_path: Path, capsys: Any) -> None:
    from app.hub import load

    for split, count in (("train", 100), ("valid", 10)):
        columns = {"input0": ["cats purr", "dogs bark"] * count, "label": ["feline", "canine"] * count}
        write(tmp_path / "sentence_prediction", split, **columns)
    more = ["checkpoint.metric=f1", "criterion.report_f1_and_mcc=true"]
    run_dir, valid = trained(tmp_path, "sentence_prediction", *more)
    assert valid["accuracy"] == valid["f1"] == valid["mcc"] == 100
    assert evaluated(run_dir, capsys)["f1"] == 100
    model = load(run_dir, device="cpu")
    assert model.predict(["dogs bark", "cats purr", "a cats"]) == ["canine", "feline", "feline"]
    with pytest.raises(DataError, match="row 2: has 2 texts; this model was trained on 1 a row"):
        model.predict(["dogs bark", ("dogs", "bark")])
    with pytest.raises(ConfigError, match="task sentence_prediction generates no text"):
        model.translate(["dogs bark"])


def test_learns_numbers(tmp_path: Path, capsys: Any) -> None:
    for split, count in (("train", 100), ("valid", 10)):
        columns = {"input0": ["a", "a", "b"] * count, "input1": ["b", "a", "b"] * count}
        write(tmp_path / "sentence_prediction", split, **columns, label=["-1", "1", "2.5"] * count)
    run_dir, valid = trained(
        tmp_path, "sentence_prediction", "criterion.regression_target=true", "checkpoint.metric=pearson"
    )
    assert valid["pearson"] > 95
    assert evaluated(run_dir, capsys)["pearson"] >= valid["pearson"]  # that of the best checkpoint


def test_learns_to_choose(tmp_path: Path, capsys: Any) -> None:
    for split, count in (("train", 100), ("valid", 10)):
        columns = {"input0": ["x", "y"] * count, "input1": ["a b", "b a"] * count, "input2": ["b a", "a b"] * count}
        write(tmp_path / "sentence_ranking", split, **columns, label=["0", "1"] * count)
    run_dir, valid = trained(tmp_path, "sentence_ranking", "checkpoint.metric=accuracy")
    assert valid["accuracy"] == 100
    assert evaluated(run_dir, capsys)["accuracy"] == 100


def test_a_masked_lm_is_a_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from app.assembly import restore
    from app.train import run

    for split, count in (("train", 60), ("valid", 10)):
        columns = {"input0": ["cats purr", "dogs bark"] * count, "label": ["feline", "canine"] * count}
        write(tmp_path / "sentence_prediction", split, **columns)
        write(tmp_path / "text", split, en=["dogs bark and cats purr"] * count)
    first = ["task=masked_lm", "criterion=masked_lm", *RUN[:-1], "trainer.max_update=20", "task.tokens_per_sample=32"]
    places = [f"task.data={tmp_path / 'text'}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'first'}"]
    run(*configured([*first, *places]))

    start = [f"checkpoint.finetune_from={tmp_path / 'first'}", "checkpoint.finetune_partial=true"]
    same = ["task.max_positions=32", "checkpoint.metric=accuracy", "optimizer.lr=1e-12", "trainer.max_update=1"]
    with caplog.at_level("INFO"):
        run_dir, _ = trained(tmp_path, "sentence_prediction", *start, *same)
    before, after = restore(tmp_path / "first"), restore(run_dir)
    assert after.task.source_vocabulary == before.task.source_vocabulary
    weights = after.model.state_dict()
    for name, weight in before.model.state_dict().items():
        torch.testing.assert_close(weights[name], weight)
    heads = [name for name in weights if name.startswith("classification_heads.")]
    assert len(heads) == 4
    assert all(f"not taken: missing {name}" in caplog.text for name in heads)


def test_criterion_and_task_must_be_of_a_kind(tmp_path: Path) -> None:
    data = write(tmp_path / "data", **COLUMNS)
    given = ["task=sentence_prediction", f"task.data={data}", "model=roberta_tiny", "trainer.valid_split=train"]
    with pytest.raises(ConfigError, match="SentenceRanking is for candidates, and task SentencePrediction asks for"):
        configured([*given, "criterion=sentence_ranking"])
    with pytest.raises(ConfigError, match="this run will have loss, nll_loss, ppl, accuracy; see"):
        configured([*given, "criterion=sentence_prediction", "checkpoint.metric=f1"])
