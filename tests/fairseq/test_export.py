"""What is exported for fairseq comes back by the import as the same model; what fairseq does not have is refused."""

from pathlib import Path

import pytest
import torch

from app import export
from app import train as train_command
from app.assembly import restore
from app.errors import ConfigError
from app.fairseq.exporting import VERSION
from app.fairseq.reading import read
from app.hub import load
from tests.fairseq.imports import run_import
from tests.fairseq.test_import import SIZES
from tests.runs import configured, train, write_corpus

SHORT = ("trainer.max_update=5", "trainer.validate_interval=0", "task.num_workers=1", "trainer.num_threads=1")
LINES = ["ba be gu do", "gu gu ba", ""]


def exported(run_dir: Path, output: Path) -> Path:
    export.run(*configured([f"checkpoint={run_dir}", "format=fairseq", f"output={output}"], "export"))
    return output


@pytest.mark.parametrize("joined", [True, False])
def test_a_translation_model_comes_back(tmp_path: Path, joined: bool) -> None:
    options = ["tokenizer=word", f"task.joined_dictionary={str(joined).lower()}", "model.encoder_normalize_before=true"]
    options += ["model.adaptive_softmax_cutoff=[9]", "criterion=adaptive_loss"] if not joined else []
    run_dir = train(tmp_path / "ours", *SHORT, *options)
    directory = exported(run_dir, tmp_path / "theirs")
    run_import(directory / "model.pt", directory, tmp_path / "back", "tokenizer=word")
    ours, back = load(run_dir, device="cpu"), load(tmp_path / "back", device="cpu")
    assert ours.translate(LINES, beam=2) == back.translate(LINES, beam=2)
    assert read(directory / "model.pt").weights["decoder.version"] == VERSION


ADAPTIVE = [f"model.{name}=[9,14]" for name in ("adaptive_input_cutoff", "adaptive_softmax_cutoff")]
TIED = [f"model.{name}=true" for name in ("adaptive_input", "tie_adaptive_weights", "tie_adaptive_proj")]


@pytest.mark.parametrize("overrides", [["criterion=cross_entropy"], [*ADAPTIVE, *TIED, "criterion=adaptive_loss"]])
def test_a_language_model_comes_back(tmp_path: Path, overrides: list[str]) -> None:
    text = write_corpus(tmp_path / "corpus")
    sizes = [f"model.decoder_{name}={size}" for name, size in SIZES.items()]
    options = ["task=language_modeling", f"task.data={text}", "task.lang=xx", "task.tokens_per_sample=32", *sizes]
    options += ["tokenizer=word", "model=transformer_lm", "precision=fp32", *SHORT, *overrides]
    places = [f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'ours'}"]
    train_command.run(*configured([*options, *places]))
    directory = exported(tmp_path / "ours", tmp_path / "theirs")
    run_import(directory / "model.pt", directory, tmp_path / "back", "tokenizer=word")
    ours, back = (restore(path).model.state_dict() for path in (tmp_path / "ours", tmp_path / "back"))
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[name], weight) for name, weight in back.items())


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        (["model.rotary_pos=true"], ["model.rotary_pos=True: fairseq would take it for False; it cannot be exported"]),
        (
            ["model.decoder_layers=2", "model.decoder_layers_to_keep=[1]"],
            [
                "model.decoder_layers=2: fairseq would take it for 1; it cannot be exported",
                "model.decoder_layers_to_keep=[1]: fairseq would take it for None; it cannot be exported",
            ],
        ),
        (["task.prepend_bos=true"], ["task.prepend_bos=True: fairseq is not told of it here"]),
    ],
)
def test_what_fairseq_does_not_have_is_refused(tmp_path: Path, overrides: list[str], faults: list[str]) -> None:
    run_dir = train(tmp_path, *SHORT, *overrides)
    with pytest.raises(ConfigError) as raised:
        exported(run_dir, tmp_path / "theirs")
    assert raised.value.faults == faults
    assert not (tmp_path / "theirs").exists()


def test_another_model_is_refused_by_its_class(tmp_path: Path) -> None:
    run_dir = train(tmp_path, *SHORT, "model=lstm", "model.decoder_layers=1")
    with pytest.raises(ConfigError, match="model._target_=app.models.lstm.LSTM: fairseq is given app.models"):
        exported(run_dir, tmp_path / "theirs")
