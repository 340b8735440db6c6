"""`app.export`, and CTranslate2 as an engine, on a small run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app import export, generate
from app.assembly import restore
from app.errors import ConfigError
from app.hub import load
from tests.runs import configured, train


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("export"), "trainer.max_update=150", "trainer.validate_interval=0")


def exported(run_dir: Path, directory: Path, kind: str) -> Path:
    export.run(*configured([f"checkpoint={run_dir}", f"format={kind}", f"output={directory / kind}"], "export"))
    assert [path.name for path in directory.iterdir()] == [kind]
    return directory / kind


def generated(run_dir: Path, output: Path, *overrides: str) -> list[str]:
    given = [f"checkpoint={run_dir}", f"output_file={output}", "num_threads=1", "scorer=[]", *overrides]
    generate.run(*configured(given, "generate"))
    return output.read_text().splitlines()


@pytest.mark.parametrize("search", ["beam", "greedy"])
def test_ctranslate2_finds_what_we_find(run_dir: Path, tmp_path: Path, search: str) -> None:
    pytest.importorskip("ctranslate2")
    lines = (run_dir.parent / "corpus" / "train.xx").read_text().splitlines()[:200]
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in [*lines, "", "unheard of"]))
    options = [f"input={tmp_path / 'in'}", f"search={search}", "search.max_len_b=20"]
    ours = generated(run_dir, tmp_path / "ours", *options)
    theirs = generated(run_dir, tmp_path / "theirs", *options, "engine=ctranslate2")
    assert len(ours) == len(theirs) == 202
    assert sum(a == b for a, b in zip(ours, theirs)) >= 0.97 * 202
    if search == "beam":  # its rules for the end of a search miss a better hypothesis now and then
        differing = [(line, a, b) for line, a, b in zip(lines, ours, theirs) if a != b]
        model = load(run_dir, device="cpu")
        for line, *both in differing:
            mine, other = model.score([line, line], both)
            assert mine.score > other.score - 1e-4
    rounded = generated(run_dir, tmp_path / "int8", *options, "engine=ctranslate2", "precision=int8")
    assert sum(a == b for a, b in zip(ours, rounded)) >= 0.8 * 202


def test_an_exported_model_is_one_of_ctranslate2s(run_dir: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    directory = exported(run_dir, tmp_path, "ctranslate2")
    ((best, *_),) = load(run_dir, device="cpu").hypotheses(["ba be gu do"], max_len_b=20)
    (result,) = ctranslate2.Translator(str(directory)).translate_batch([best.source_pieces], beam_size=5)
    assert result.hypotheses[0] == best.pieces


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["search=sampling"], "search: engine=ctranslate2 has beam and greedy"),
        (["search.temperature=2"], "search.temperature=2.0: engine=ctranslate2 does not have it"),
        (["precision=bf16"], "precision=bf16: engine=ctranslate2 computes in fp32 or int8"),
    ],
)
def test_what_ctranslate2_does_not_have_is_named(run_dir: Path, tmp_path: Path, overrides, fault: str) -> None:
    pytest.importorskip("ctranslate2")
    with pytest.raises(ConfigError, match=fault):
        generated(run_dir, tmp_path / "out", "engine=ctranslate2", *overrides)


def test_a_model_that_ctranslate2_does_not_have_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    options = ["trainer.max_update=1", "trainer.validate_interval=0"]
    run_dir = train(tmp_path / "rotary", *options, "model.rotary_pos=true", "model.activation_fn=swiglu")
    with pytest.raises(ConfigError) as raised:
        export.run(*configured([f"checkpoint={run_dir}", f"output={tmp_path / 'out'}"], "export"))
    assert [fault.partition("=")[0] for fault in raised.value.faults] == ["model.rotary_pos", "model.activation_fn"]
    assert not (tmp_path / "out").exists()


def test_a_task_whose_sentences_have_more_than_eos_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    options = ["trainer.max_update=1", "trainer.validate_interval=0"]
    run_dir = train(tmp_path / "bos", *options, "task.prepend_bos=true")
    with pytest.raises(ConfigError) as raised:
        export.run(*configured([f"checkpoint={run_dir}", f"output={tmp_path / 'out'}"], "export"))
    assert raised.value.faults == ["task.prepend_bos=True: CTranslate2 is not told of it here"]


def test_layers_that_are_left_have_their_weights_in_ctranslate2(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")  # which compares its scores with the model's
    deep = ["model.encoder_layers=3", "model.encoder_layers_to_keep=[0,2]", "model.decoder_layers_to_keep=[1]"]
    options = ["model.decoder_layers=2", "trainer.max_update=1", "trainer.validate_interval=0"]
    run_dir = train(tmp_path / "pruned", *deep, *options)
    assert (exported(run_dir, tmp_path / "out", "ctranslate2") / "model.bin").is_file()


def test_safetensors_hold_the_weights_by_name(run_dir: Path, tmp_path: Path) -> None:
    directory = exported(run_dir, tmp_path, "safetensors")
    weights, expected = load_file(directory / "model.safetensors"), restore(run_dir).model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert (directory / "config.yaml").is_file()
    assert (directory / "task").is_dir()


def test_graphs_compute_what_the_model_does(run_dir: Path, tmp_path: Path) -> None:
    directory, restored = exported(run_dir, tmp_path, "torch_export"), restore(run_dir)
    encoder, decoder = (torch.export.load(directory / f"{name}.pt2").module() for name in ("encoder", "decoder"))
    src = torch.tensor([[5, 6, 7, 2], [8, 2, 1, 1]])
    previous, lengths = torch.tensor([[2, 9], [2, 6]]), torch.tensor([4, 2])
    with torch.inference_mode():
        out = restored.model.encode(src, lengths)
        expected = restored.model.project(restored.model.decode(previous, out)[:, -1])
        states, keep = encoder(src, lengths)
        torch.testing.assert_close(decoder(previous, states, keep), expected)


def test_onnx_graphs_compute_what_the_model_does(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    directory, restored = exported(run_dir, tmp_path, "onnx"), restore(run_dir)
    encoder, decoder = (ReferenceEvaluator(str(directory / f"{name}.onnx")) for name in ("encoder", "decoder"))
    src, lengths = torch.tensor([[5, 6, 7, 2], [8, 2, 1, 1]]), torch.tensor([4, 2])
    previous = torch.tensor([[2, 9], [2, 6]])
    states, keep = encoder.run(None, {"src_tokens": src.numpy(), "src_lengths": lengths.numpy()})
    (scores,) = decoder.run(None, {"prev_output_tokens": previous.numpy(), "states": states, "keep": keep})
    with torch.inference_mode():
        out = restored.model.encode(src, lengths)
        expected = restored.model.project(restored.model.decode(previous, out)[:, -1])
    torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-4, atol=1e-4)


def test_an_output_that_is_there_is_not_overwritten(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        configured([f"checkpoint={run_dir}", f"output={tmp_path}"], "export")
