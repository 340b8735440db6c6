"""A trained run from Python and by `app.evaluate`; the mean of its checkpoints."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from app import average, evaluate
from app.errors import CheckpointError, ConfigError, DataError, StorageError
from app.hub import load
from app.runtime.checkpoint import Checkpoint
from tests.runs import configured, train


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("hub")
    return train(directory, "trainer.max_update=30", "trainer.validate_interval_updates=10", "checkpoint.keep_last=3")


def language_model(directory: Path, lang: str) -> Path:
    """A run on one side of the corpus: with the same tokenizer, its vocabulary is the translation's."""
    from app.train import run

    overrides = ["task=language_modeling", "model=transformer_lm_gpt", "criterion=cross_entropy", "tokenizer=word"]
    overrides += ["model.decoder_layers=1", "model.decoder_embed_dim=32", "model.decoder_attention_heads=2"]
    overrides += ["model.decoder_ffn_embed_dim=32", "task.sample_break_mode=eos", "task.tokens_per_sample=64"]
    overrides += ["precision=fp32", "trainer.max_update=20", "trainer.num_threads=1", "batching.max_tokens=1024"]
    overrides += [f"task.data={directory / 'corpus'}", f"task.lang={lang}", f"cache_dir={directory / 'cache'}"]
    overrides += ["lr_scheduler=fixed", "optimizer.lr=3e-3", "task.num_workers=1", f"run_dir={directory / lang}"]
    run(*configured(overrides))
    return directory / lang


def checkpoints(run_dir: Path) -> list[Checkpoint]:
    return [Checkpoint.open(path) for path in sorted((run_dir / "checkpoints").glob("update_*"))]


def evaluated(capsys, checkpoint: Path, *overrides: str) -> dict:
    given = [f"checkpoint={checkpoint}", f"cache_dir={checkpoint.parent / 'cache'}", "output=json", *overrides]
    capsys.readouterr()
    loss = evaluate.run(*configured([*given, "num_threads=1"], "evaluate"))
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["loss"] == loss
    return metrics


def test_evaluation_is_what_validation_was(run_dir, capsys):
    newest = checkpoints(run_dir)[-1]
    metrics = evaluated(capsys, newest.path, f"cache_dir={run_dir.parent / 'cache'}")
    for name in ("loss", "nll_loss", "ppl"):
        assert metrics[name] == pytest.approx(newest.metrics[name], rel=1e-4)
    assert metrics["nsentences"] == 20
    assert evaluated(capsys, run_dir, "split=test", "max_tokens=128")["loss"] != metrics["loss"]


def test_log_probabilities_of_pieces_add_up_to_the_loss(run_dir, capsys, tmp_path):
    metrics = evaluated(capsys, run_dir, f"output_file={tmp_path / 'pieces'}")
    rows = [json.loads(line) for line in (tmp_path / "pieces").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == list(range(20))
    assert all(row["pieces"][-1] == "</s>" and len(row["pieces"]) == len(row["log_probs"]) for row in rows)
    total = sum(sum(row["log_probs"]) for row in rows)
    assert -total / metrics["ntokens"] / math.log(2) == pytest.approx(metrics["nll_loss"], rel=1e-5)


@pytest.mark.parametrize("wanted", ["last=2", "best=2", "inputs"])
def test_weights_are_means_and_the_directory_is_a_run(run_dir, tmp_path, wanted):
    chosen = checkpoints(run_dir)[-2:]  # the loss falls, so that they are the best too
    named = f"inputs=[{','.join(str(each.path) for each in chosen)}]"
    output = tmp_path / "averaged"
    average.run(*configured([f"run={run_dir}", f"output={output}", named if wanted == "inputs" else wanted], "average"))
    (written,) = checkpoints(output)
    first, second = (each.tensors("model.safetensors") for each in chosen)
    for name, tensor in written.tensors("model.safetensors").items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    assert len(load(output, device="cpu").translate(["ba be"])) == 1


def test_what_cannot_be_averaged_is_told(run_dir, tmp_path):
    with pytest.raises(CheckpointError, match="holds 3 such checkpoints, not 9"):
        average.run(*configured([f"run={run_dir}", f"output={tmp_path / 'out'}", "last=9"], "average"))
    assert not (tmp_path / "out").exists()
    for overrides, fault in ((["last=1", "best=1"], "give one of them"), (["last=1", f"output={run_dir}"], "new")):
        with pytest.raises(ConfigError, match=fault):
            configured([f"run={run_dir}", f"output={tmp_path / 'out'}", *overrides], "average")


def test_what_an_average_cannot_copy_is_told(run_dir, tmp_path):
    linked = tmp_path / "linked"
    shutil.copytree(run_dir, linked)
    (linked / "task" / "more").symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match="more: is a link"):
        average.run(*configured([f"run={linked}", f"output={tmp_path / 'out'}", "last=1"], "average"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/below"):
        average.run(*configured([f"run={run_dir}", f"output={tmp_path / 'file' / 'below'}", "last=1"], "average"))


def test_an_average_knows_where_the_runs_packages_were(run_dir, tmp_path):
    owned = tmp_path / "owned"
    shutil.copytree(run_dir, owned)
    (owned / "packages.json").write_text('{"my_module": "/gone/my_module"}')
    average.run(*configured([f"run={owned}", f"output={tmp_path / 'out'}", "last=2"], "average"))
    assert (tmp_path / "out" / "packages.json").read_text() == '{"my_module": "/gone/my_module"}'


LINES = ["ba be bi", "", "gu", "do da du do bi be", "ka"]


@pytest.mark.parametrize("search", ["beam", "sampling", "diverse_beam", "lexically_constrained", "mbr"])
def test_a_line_in_is_a_line_out(run_dir, search):
    model = load(run_dir, device="cpu")
    outputs = model.translate(LINES, search, max_len_b=12)
    assert len(outputs) == len(LINES)
    assert outputs[1] == ""
    assert outputs == load(run_dir, device="cpu", max_tokens=8).translate(LINES, search, max_len_b=12) or search in (
        "sampling",
        "mbr",
    )


def test_phrases_of_a_line_stand_in_its_output(run_dir):
    model = load(run_dir, device="cpu")
    lines = ["ba be\tKA\tGU DO", "gu ga", "do\tBI"]
    first, second, third = model.translate(lines, "lexically_constrained", phrases=["DU"], max_len_b=30)
    assert "KA" in first.split()
    assert "GU DO" in first
    assert all("DU" in output.split() for output in (first, second, third))
    assert "BI" in third.split()


def test_scores_of_what_was_found_are_those_of_the_search(run_dir):
    model = load(run_dir, device="cpu")
    lines = [line for line in LINES if line]
    best = [each[0] for each in model.hypotheses(lines, beam=3, max_len_b=12)]
    for given, found in zip(model.score(lines, [each.text for each in best]), best):
        assert given.pieces == found.pieces
        assert given.score == pytest.approx(found.score, abs=1e-4)
        assert given.positional_scores == pytest.approx(found.positional_scores, abs=1e-4)
    assert model.score([], []) == []


def test_samples_differ_by_seed_only(run_dir):
    model = load(run_dir, run_dir, device="cpu")
    first = model.sample(LINES, seed=1, sampling_topp=0.0, max_len_b=12)
    assert first == model.sample(LINES, seed=1, sampling_topp=0.0, max_len_b=12)
    assert first != model.sample(LINES, seed=2, sampling_topp=0.0, max_len_b=12)


def test_a_language_model_takes_part(run_dir, capsys):
    lm = language_model(run_dir.parent, "yy")
    model = load(run_dir, device="cpu")
    fused = model.translate(LINES, lm_path=str(lm), lm_weight=3.0, max_len_b=12)
    assert fused != model.translate(LINES, lm_path=str(lm), lm_weight=0.0, max_len_b=12)
    assert model.translate(LINES, max_len_b=12) == model.translate(LINES, lm_path=str(lm), max_len_b=12)
    newest = checkpoints(lm)[-1]
    cache = f"cache_dir={run_dir.parent / 'cache'}"
    assert evaluated(capsys, newest.path, cache)["ppl"] == pytest.approx(newest.metrics["ppl"], rel=1e-4)
    assert len(load(lm, device="cpu").sample(["BA BE", ""], max_len_b=12)) == 2
    with pytest.raises(CheckpointError, match="another vocabulary"):
        model.translate(LINES, lm_path=str(language_model(run_dir.parent, "xx")))


def test_mistakes_are_named(run_dir):
    model = load(run_dir, device="cpu")
    with pytest.raises(ConfigError, match="search.bean"):
        model.translate(["ba"], bean=5)
    with pytest.raises(ConfigError, match="diverse_beam"):
        model.translate(["ba"], "bean")
    with pytest.raises(DataError, match="2 references for 1 lines"):
        model.score(["ba"], ["BA", "BA"])
    with pytest.raises(ConfigError, match="run directory"):
        load()
    for given, fault in (({"device": "gpu"}, "device=gpu: must be auto"), ({"max_tokens": 0}, "max_tokens=0: must be")):
        with pytest.raises(ConfigError, match=fault):
            load(run_dir, **given)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("ba be", r"lines: is one text; give a list, \['ba be'\]"),
        (["ba", 1], "lines: line 2 is of type int; give text"),
        (["ba", None], "lines: line 2 is of type NoneType; give text"),
        (["a\ud800"], "lines: line 1 holds half of a surrogate pair"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(run_dir, lines, fault):
    model = load(run_dir, device="cpu")
    for use in (model.translate, model.sample, lambda given: model.score(given, ["BA"])):
        with pytest.raises(DataError, match=fault):
            use(lines)
    with pytest.raises(DataError, match="translations: is one text"):
        model.score(["ba"], "BA")


def test_lines_may_come_from_anything_that_gives_them(run_dir):
    model = load(run_dir, device="cpu")
    assert model.translate(line for line in LINES) == model.translate(tuple(LINES)) == model.translate(LINES)
