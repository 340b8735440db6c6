"""An imported run is a run: it is resumed by the line that is printed, and started from; what does not fit is told."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from app import train
from app.assembly import restore
from app.errors import CheckpointError, ConfigError, DataError
from app.fairseq.optimizer_state import STATES
from app.runtime.checkpoint import find
from tests.fairseq.imports import run_import, write_dictionary
from tests.fairseq.test_data import binarise
from tests.runs import TINY, configured

ENDLESS = [f"trainer.{each}" for each in ("max_update=12", "num_threads=1")]
SIZES = {"embed_dim": 16, "ffn_embed_dim": 24, "layers": 1, "attention_heads": 2}
OPTIONS = {
    **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in SIZES.items()},
    **{"arch": "transformer", "task": "translation", "criterion": "cross_entropy", "optimizer": "adam"},
    **{"lr_scheduler": "inverse_sqrt", "warmup_updates": 10, "warmup_init_lr": -1, "lr": [0.01], "max_update": 10},
    **{"adam_betas": "(0.9, 0.98)", "dropout": 0.0, "max_tokens": 1024, "source_lang": "xx", "target_lang": "yy"},
    "distributed_world_size": 1,
    **{"decoder_output_dim": 16, "seed": 7, "max_source_positions": 64, "max_target_positions": 64},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return binarise(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Of a run of ours, whose names are fairseq's."""
    home = tmp_path_factory.mktemp("first")
    sizes = [f"model.{side}_{name}={size}" for side in ("encoder", "decoder") for name, size in SIZES.items()]
    places = [f"task.data={data}", f"cache_dir={home / 'cache'}", f"run_dir={home / 'run'}", "trainer.max_update=2"]
    train.run(*configured([*TINY, "tokenizer=pretokenized", *sizes, *places, "model.dropout=0"]))
    return find(home / "run", "loss", "min").tensors("model.safetensors")


def saved(path: Path, weights: dict[str, torch.Tensor], state: bool = False, **options: Any) -> Path:
    """A checkpoint in fairseq's older layout."""
    given = {key: value for key, value in (OPTIONS | options).items() if value is not ...}
    parts = {i: {"step": 4, "exp_avg": p * 0.1, "exp_avg_sq": p**2} for i, p in enumerate(weights.values())}
    group = {"lr": 0.004, "params": list(parts)}
    content: dict[str, Any] = {"args": argparse.Namespace(**given), "model": dict(weights)}
    content["extra_state"] = {"train_iterator": {"epoch": 2, "iterations_in_epoch": 2}}
    content["optimizer_history"] = [{"num_updates": 4, "lr_scheduler_state": {"best": None}}]
    if state:
        content["last_optimizer_state"] = {"state": parts, "param_groups": [group]}
    torch.save(content, path)
    return path


def test_the_printed_line_goes_on(data: Path, weights: Any, tmp_path: Path) -> None:
    words = run_import(saved(tmp_path / "m.pt", weights, state=True), data, tmp_path / "run")
    assert f"run_dir={tmp_path / 'run'}" in words
    given = [*words, "tokenizer=pretokenized", f"cache_dir={tmp_path / 'cache'}", *ENDLESS]
    position = find(tmp_path / "run", "loss", "min").state()["iterator"]
    assert position["epoch"] == 2
    assert position["num_samples"] % 8 == 0  # two of fairseq's batches
    assert 2 * 8 <= position["num_samples"] < 300
    train.run(*configured(given))
    newest = find(tmp_path / "run" / "checkpoints" / "update_00000012", "loss", "min")
    moments = newest.state()["optimizer"]["optimizer"]["state"]
    assert {float(entry["step"]) for entry in moments.values()} == {12.0}


def test_the_command_prints_the_line(data: Path, weights: Any, tmp_path: Path) -> None:
    places = [f"checkpoint={saved(tmp_path / 'm.pt', weights)}", f"data={data}", f"output={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "app.import_fairseq", *places]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shlex.split(ended.stdout)[:3] == ["python", "-m", "app.train"]
    assert "tokenizer=pretokenized" in shlex.split(ended.stdout)


def test_without_state_training_starts_from_the_weights(data: Path, weights: Any, tmp_path: Path) -> None:
    run_import(saved(tmp_path / "m.pt", weights), data, tmp_path / "run")
    sizes = [f"model.{side}_{name}={size}" for side in ("encoder", "decoder") for name, size in SIZES.items()]
    places = [f"task.data={data}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'next'}"]
    start = [f"checkpoint.finetune_from={tmp_path / 'run'}", "trainer.max_update=1", "optimizer.lr=1e-9"]
    train.run(*configured([*TINY, "tokenizer=pretokenized", *sizes, *places, *start]))
    after = find(tmp_path / "next", "loss", "min").tensors("model.safetensors")
    for name, weight in weights.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-4, atol=1e-6)


def test_older_names_are_renamed(data: Path, weights: Any, tmp_path: Path) -> None:
    old = {k: v for k, v in weights.items() if "_proj" not in k or "self_attn" not in k or "out_proj" in k}
    old = {k.replace("encoder.layers.0.final_layer_norm", "encoder.layers.0.layer_norms.1"): v for k, v in old.items()}
    for side in ("encoder", "decoder"):
        for kind in ("weight", "bias"):
            parts = [weights[f"{side}.layers.0.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            old[f"{side}.layers.0.self_attn.in_proj_{kind}"] = torch.cat(parts)
    old["decoder.embed_out"] = old.pop("decoder.output_projection.weight")
    old |= {"encoder.version": torch.ones(1), "encoder.embed_positions._float_tensor": torch.ones(1)}
    run_import(saved(tmp_path / "m.pt", old), data, tmp_path / "run")
    found = find(tmp_path / "run", "loss", "min").tensors("model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def test_a_pruned_model_has_the_layers_that_are_left(data: Path, weights: Any, tmp_path: Path) -> None:
    pruned = saved(tmp_path / "m.pt", weights, encoder_layers_to_keep="2", encoder_layers=3, encoder_layerdrop=0.2)
    words = run_import(pruned, data, tmp_path / "run")
    assert {"model.encoder_layers=1", "model.encoder_layers_to_keep=null", "model.encoder_layerdrop=0.2"} <= set(words)
    assert find(tmp_path / "run", "loss", "min").tensors("model.safetensors").keys() == weights.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quant_noise_pq": 0.1}, "quant_noise_pq=0.1 .not here.; .* ignore=.quant_noise_pq"),
        ({"my_own_option": 3}, "my_own_option=3 .not known.; if the model does not depend on them"),
        ({"encoder_layers": 2}, "weights of another model: encoder.layers.1.self_attn.q_proj.weight is missing"),
        ({"decoder_learned_pos": True}, "decoder.embed_positions.weight is missing"),
        ({"encoder_ffn_embed_dim": 48}, r"fc1.weight is \[24, 16\] instead of \[48, 16\]"),
    ],
)
def test_what_does_not_fit_stops_the_import(
    data: Path, weights: Any, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        run_import(saved(tmp_path / "m.pt", weights, **options), data, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]


@pytest.mark.parametrize(
    "options",
    [
        {"arch": "../task/translation"},
        {"arch": "transformer'"},
        {"activation_fn": "${oc.env:HOME}"},
        {"activation_fn": "relu,hydra.run.dir=x"},
        {"source_lang": "../../etc"},
        {"encoder_ffn_embed_dim": 1 << 40},
        {"adam_betas": "__import__('os').system('touch canary')"},
    ],
)
def test_options_are_values_and_nothing_else(
    data: Path, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((CheckpointError, ConfigError)):
        run_import(saved(tmp_path / "m.pt", weights, **options), data, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]


def test_what_is_not_here_is_told(data: Path, weights: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model=transformer_moe: is not here"):
        run_import(saved(tmp_path / "m.pt", weights, arch="transformer_moe"), data, tmp_path / "run")
    run_import(saved(tmp_path / "m.pt", weights, my_own_option=3), data, tmp_path / "run", "ignore=[my_own_option]")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="dict.xx.txt: no such dictionary; there is no dict.txt at all"):
        run_import(saved(tmp_path / "m.pt", weights), tmp_path / "empty", tmp_path / "other")
    write_dictionary(tmp_path / "small" / "dict.xx.txt", ["a"])
    write_dictionary(tmp_path / "small" / "dict.yy.txt", ["b"])
    with pytest.raises(CheckpointError, match="embed_tokens.weight is .* is data= the data-bin of this checkpoint"):
        run_import(saved(tmp_path / "m.pt", weights), tmp_path / "small", tmp_path / "other")


def test_an_optimizer_state_of_other_parameters_is_refused(data: Path, weights: Any, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt", weights, state=True)
    content = torch.load(path, weights_only=False)
    content["last_optimizer_state"]["state"][0]["exp_avg"] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"exp_avg of .* is \[3\] instead of .* reset_optimizer=true"):
        run_import(path, data, tmp_path / "run")
    run_import(path, data, tmp_path / "other", "reset_optimizer=true")


def test_mbarts_languages_stand_behind_the_dictionary(weights: Any, tmp_path: Path) -> None:
    for lang in ("xx", "yy"):
        write_dictionary(tmp_path / "bin" / f"dict.{lang}.txt", ["a", "b"])
    rows = {name: torch.rand(9, 16) for name in weights if "embed_tokens" in name or "output_projection" in name}
    given = {"task": "translation_from_pretrained_bart", "langs": "xx,yy"}
    words = run_import(saved(tmp_path / "m.pt", weights | rows, **given), tmp_path / "bin", tmp_path / "run")
    assert {"task=translation", "task.langs=[xx,yy]", "task.joined_dictionary=true"} <= set(words)
    assert restore(tmp_path / "run").task.source_vocabulary.pieces[4:] == ["a", "b", "[xx]", "[yy]", "<mask>"]


def test_nag_goes_on_as_fairseq_steps() -> None:
    """fairseq's rule (`nag`: Nesterov with a buffer that holds the rate) and torch's SGD from our state of it."""
    torch.manual_seed(1)
    p, buffer, grad, lr, momentum = torch.randn(5), torch.randn(5), torch.randn(5), 0.1, 0.9
    theirs = p + buffer * momentum * momentum - grad * (1 + momentum) * lr
    ours = p.clone().requires_grad_()
    optimizer = torch.optim.SGD([ours], lr=lr, momentum=momentum, nesterov=True)
    state = STATES["nag"]({"momentum_buffer": buffer}, {"lr_old": lr})
    optimizer.load_state_dict({"state": {0: state}, "param_groups": optimizer.state_dict()["param_groups"]})
    ours.grad = grad
    optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs)


@pytest.mark.parametrize("use_ema", [False, True])
def test_the_average_is_taken_where_it_is_wanted(data: Path, weights: Any, tmp_path: Path, use_ema: bool) -> None:
    path = saved(tmp_path / "m.pt", weights, store_ema=True, ema_decay=0.99, ema_start_update=0, ema_update_freq=1)
    content = torch.load(path, weights_only=False)
    content["extra_state"]["ema"] = {name: weight + 1 for name, weight in weights.items()}
    torch.save(content, path)
    words = run_import(path, data, tmp_path / "run", f"use_ema={str(use_ema).lower()}")
    assert {"callbacks=ema", "callbacks.ema.decay=0.99"} <= set(words)
    found = find(tmp_path / "run", "loss", "min")
    assert torch.equal(
        found.tensors("model.safetensors")["encoder.embed_tokens.weight"], weights["encoder.embed_tokens.weight"]
    )
    first = found.tensors(found.inference_weights)["encoder.embed_tokens.weight"]
    assert torch.equal(first, weights["encoder.embed_tokens.weight"] + use_ema)
