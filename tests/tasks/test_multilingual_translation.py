"""Several pairs of languages: their shares of an epoch, the symbols that tell them apart, and runs of both models."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.data.grouped import GroupedDataset
from app.errors import ConfigError, DataError
from app.plugins import configure
from tests.runs import TINY, configured, write_corpus

PAIRS = ["task=multilingual_translation", "task.lang_pairs=[xx-yy,yy-xx]"]
TOKENS = ["task.encoder_langtok=tgt"]
COMMON = [each for each in TINY if not each.startswith(("task.source_lang", "task.target_lang", "task.joined"))]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", sizes=(60, 8, 8))


def overrides(corpus: Path, tmp_path: Path, *more: str) -> list[str]:
    given = [f"task.data={corpus}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    return [*COMMON, *PAIRS, *given, *more]


def prepared(corpus: Path, tmp_path: Path, *more: str) -> Any:
    cfg, plugins = configured(overrides(corpus, tmp_path, *more))
    task = plugins["task"](plugins["tokenizer"], cfg.batching)
    task.prepare(tmp_path / "cache")
    return task


def words(task: Any, row: Any) -> list[str]:
    return [task.target_vocabulary.pieces[i].removeprefix("▁") for i in row.tolist() if i != 1]


def test_a_batch_is_of_one_pair_and_says_its_languages(corpus: Path, tmp_path: Path) -> None:
    task = prepared(corpus, tmp_path, *TOKENS, "task.decoder_langtok=true")
    assert task.target_vocabulary.pieces[-2:] == ["__xx__", "__yy__"]
    batches = list(task.get_batch_iterator(task.dataset("train"), 1))
    assert {batch.group for batch in batches} == {"xx-yy", "yy-xx"}
    assert sum(len(batch) for batch in batches) == 120
    assert sorted(i for batch in batches for i in batch.ids.tolist()) == list(range(120))
    assert task.splits() == ["test", "train", "valid"]
    assert task.dataset("train").left_out["empty on one side"] == 0
    epochs = [task.get_batch_iterator(task.dataset("train"), epoch) for epoch in range(1, 7)]
    orders = {tuple(batch.group for batch in epoch) for epoch in epochs}
    assert any(list(order) not in (sorted(order), sorted(order, reverse=True)) for order in orders)
    iterator = task.get_batch_iterator(task.dataset("train"), 1)
    halves = iterator.halves(batches[0])
    assert [half.group for half in halves] == [batches[0].group] * 2
    assert [i for half in halves for i in half.ids.tolist()] == batches[0].ids.tolist()
    for batch in batches:
        target = f"__{batch.group[-2:]}__"
        source, previous, output = (
            words(task, row[0]) for row in (batch.src_tokens, batch.prev_output_tokens, batch.target)
        )
        assert source[-1] == previous[0] == target
        assert output[-1] == "</s>"
        assert (source[0].islower(), output[0].islower()) == (
            (True, False) if batch.group == "xx-yy" else (False, True)
        )


def test_temperature_evens_the_shares(corpus: Path, tmp_path: Path) -> None:
    """Of 60 and 15 pairs the smaller has a fifth of an epoch, with a temperature of 2 a third of it."""
    lines = (corpus / "train.xx").read_text().splitlines()[:15]
    for lang in ("xx", "zz"):
        (corpus / f"train.xx-zz.{lang}").write_text("".join(f"{line}\n" for line in lines))
        (corpus / f"valid.{lang}").write_text(
            "".join(f"{line}\n" for line in (corpus / "valid.xx").read_text().split("\n"))
        )
    (corpus / "valid.yy").write_text((corpus / "valid.xx").read_text().upper())
    pairs = ["task.lang_pairs=[xx-yy,xx-zz]", *TOKENS]
    for temperature, expected in ((1, (60, 15)), (2, (50, 25))):
        dataset = prepared(corpus, tmp_path, *pairs, f"task.sampling_temperature={temperature}").dataset("train")
        assert isinstance(dataset, GroupedDataset)
        sums = [float(dataset.weights[dataset.groups == group].sum()) for group in (0, 1)]
        assert sums == pytest.approx(expected)


def test_weights_of_corpora_hold_within_a_pair(corpus: Path, tmp_path: Path) -> None:
    data = f"task.data=[{corpus},{{path: {write_corpus(tmp_path / 'more', 2, (30, 2, 2))}, weight: 2}}]"
    dataset = prepared(corpus, tmp_path, *TOKENS, data, "task.sampling_temperature=5").dataset("train")
    assert dataset.weights.tolist() == pytest.approx([*[1] * 60, *[2] * 30] * 2)


@pytest.mark.parametrize(
    ("fault", "more"),
    [
        ("task.lang_pairs=['xx-yy', 'xx']: must be different pairs", ["task.lang_pairs=[xx-yy,xx]"]),
        ("task.lang_pairs=['xx-xx']: must be different pairs", ["task.lang_pairs=[xx-xx]"]),
        ("target_lang=zz", ["task.lang_pairs=[xx-zz]"]),
        ("task.encoder_langtok=None: set tgt, or decoder_langtok=true", ["task.encoder_langtok=null"]),
        ("task.joined_dictionary=false: set true", ["task.joined_dictionary=false"]),
        ("task.encoder_langtok=to: must be one of src, tgt", ["task.encoder_langtok=to"]),
        ("is for several pairs of languages", ["task=translation", "~task.encoder_langtok", "~task.lang_pairs"]),
    ],
)
def test_faults(fault: str, more: list[str], corpus: Path, tmp_path: Path) -> None:
    given = [*COMMON, f"task.data={corpus}", f"run_dir={tmp_path / 'run'}"]
    if more[0] == "task=translation":
        given += ["model=multilingual_transformer", "task.source_lang=xx", "task.target_lang=yy"]
    else:
        given = overrides(corpus, tmp_path, *TOKENS, *more)
    with pytest.raises(ConfigError) as error:
        configured(given)
    assert fault in str(error.value)


@pytest.mark.parametrize(
    "model", [TOKENS, ["model=multilingual_transformer", "task.joined_dictionary=false", "model.share_encoders=false"]]
)
def test_trains_and_translates_each_pair(model: list[str], corpus: Path, tmp_path: Path) -> None:
    """Losses and scores of every pair; outputs are in the target's language; a pair must be named."""
    from app.generate import run as generate
    from app.train import run

    small = ["model.encoder_layers=1", "model.decoder_layers=1", "model.encoder_embed_dim=32", "search=greedy"]
    small += ["model.encoder_ffn_embed_dim=64", "model.encoder_attention_heads=2", "trainer.decode_valid=true"]
    small += ["search.max_len_b=12", "search.max_len_a=0", "trainer.max_update=80", "trainer.validate_interval=0"]
    run(*configured(overrides(corpus, tmp_path, *model, *small, "trainer.validate_interval_updates=40")))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    valid = [row for row in rows if "nll_loss_xx-yy" in row and "bleu" in row]
    assert valid[-1]["nll_loss"] < valid[0]["nll_loss"]
    for name in ("bleu", "chrf"):
        assert valid[-1][name] == pytest.approx((valid[-1][f"{name}_xx-yy"] + valid[-1][f"{name}_yy-xx"]) / 2)
    given = [f"checkpoint={tmp_path / 'run'}", "device=cpu", "num_threads=1", "search=greedy", "search.max_len_b=12"]
    for pair, is_lower in (("xx-yy", False), ("yy-xx", True)):
        out = tmp_path / f"{pair}.txt"
        generate(*configured([*given, f"lang_pair={pair}", f"output_file={out}"], "generate"))
        letters = "".join(out.read_text().split())
        assert letters
        assert letters.islower() if is_lower else letters.isupper()
    from app.hub import load

    scored = load(tmp_path / "run", device="cpu", lang_pair="yy-xx").score(["BA DE", "KO"], ["de ba", "ko ko"])
    assert [len(each.positional_scores) for each in scored] == [3, 3]
    assert [each.score for each in scored] == pytest.approx([sum(each.positional_scores) / 3 for each in scored])
    for wrong in ("null", "xx-zz"):
        with pytest.raises(ConfigError, match="must be one of this run's xx-yy, yy-xx"):
            generate(*configured([*given, f"lang_pair={wrong}", f"output_file={tmp_path / 'none'}"], "generate"))


def test_a_pair_without_text_is_named(corpus: Path, tmp_path: Path) -> None:
    task = prepared(corpus, tmp_path, *TOKENS)
    for lang in ("xx", "yy"):
        (corpus / f"valid.{lang}").write_text("\n\n")
    with pytest.raises(DataError, match="valid xx-yy: no pair is left"):
        task.dataset("valid")


def test_languages_that_share_embeddings_need_one_vocabulary(corpus: Path, tmp_path: Path) -> None:
    own = ["model=multilingual_transformer", "task.joined_dictionary=false", "model.share_encoder_embeddings=true"]
    with pytest.raises(ConfigError, match=r"xx, yy need one vocabulary; set task.joined_dictionary=true"):
        configured(overrides(corpus, tmp_path, *own))
    cfg, plugins = configured(overrides(corpus, tmp_path, *own[:2]))
    task = plugins["task"](plugins["tokenizer"], cfg.batching)
    task.prepare(tmp_path / "cache")
    shared, _ = configured(overrides(corpus, tmp_path, own[0], own[2], "task.joined_dictionary=true"))
    with pytest.raises(ConfigError, match=r"need one vocabulary; set task.joined_dictionary=true"):
        configure(shared.model, "app.interfaces.Model")(task)
