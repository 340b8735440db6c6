"""`app.generate` and `app.interactive` with a small model that a real training run leaves behind."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from app import generate, train
from app.assembly import restore
from app.cli import configure_node, store_schema
from app.compose import CONF
from app.errors import CheckpointError, ConfigError, DataError
from app.inference import load_generator, translate
from app.search.beam import BeamSearch
from tests.search.toy import config

WORDS = {"dog": "Hund", "cat": "Katze", "red": "rot", "big": "groß", "sees": "sieht", "a": "ein", "the": "das"}


def configured(command: str, *overrides: str):
    """What the command's `run` is called with."""
    store_schema(command)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(command, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(node)
    return configure_node(node, command)


def write_corpus(directory: Path, seed: int) -> None:
    choose = random.Random(seed)
    directory.mkdir()
    for split, size in (("train", 300), ("valid", 8), ("test", 23)):
        pairs = [choose.choices(list(WORDS), k=choose.randint(1, 7)) for _ in range(size)]
        (directory / f"{split}.en").write_text("".join(" ".join(words) + "\n" for words in pairs))
        (directory / f"{split}.de").write_text("".join(" ".join(WORDS[w] for w in words) + "\n" for words in pairs))


def trained(directory: Path, seed: int = 1) -> Path:
    write_corpus(directory / "data", seed)
    overrides = ["model=transformer_tiny", "tokenizer=word", "precision=fp32", "trainer.max_update=60"]
    overrides += ["lr_scheduler=fixed", "optimizer.lr=3e-3", "trainer.validate_interval=0", "trainer.num_threads=1"]
    overrides += [f"task.data={directory / 'data'}", f"run_dir={directory / 'run'}", f"cache_dir={directory / 'cache'}"]
    overrides += ["task.source_lang=en", "task.target_lang=de", "batching.max_tokens=1024"]
    train.run(*configured("train", *overrides))
    return directory / "run"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def generator_of(run_dir):
    """A generator for a beam and a batch size; the models are read once for each."""

    @cache
    def made(beam: int, max_tokens: int, runs: int = 1, engine: str = "torch"):
        cfg, plugins = configured("interactive", f"checkpoint=[{','.join([str(run_dir)] * runs)}]", "num_threads=1")
        cfg.max_tokens, cfg.device, cfg.engine = max_tokens, "cpu", engine
        length = {"max_len_a": 1.5, "max_len_b": 3} if engine == "torch" else {"max_len_b": 12}  # theirs is a batch's
        options = config(beam=beam, nbest=beam, **length)
        return load_generator(cfg, plugins | {"search": lambda vocabulary: BeamSearch(options, vocabulary)})[1]

    return made


SENTENCES = st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=8).map(" ".join)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.lists(SENTENCES, max_size=12), st.integers(1, 9), st.sampled_from([1, 40, 4096]), st.integers(1, 4))
def test_n_lines_in_are_n_lines_out_in_order_whatever_the_batches(generator_of, lines, buffer_size, max_tokens, beam):
    alone = generator_of(beam, 1)
    records = list(translate(generator_of(beam, max_tokens), lines, None, buffer_size))
    assert [record.source for record in records] == lines
    for record in records:
        ((expected, *_),) = alone.generate([record.source])
        assert record.text == expected.text
        assert record.translations[0].score == pytest.approx(expected.score, abs=1e-4)
        assert (record.text == "") == (record.source == "")


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.lists(SENTENCES, max_size=12), st.integers(1, 9), st.sampled_from([1, 40, 4096]), st.sampled_from([1, 3]))
def test_another_engine_keeps_lines_and_their_order_too(generator_of, lines, buffer_size, max_tokens, beam):
    pytest.importorskip("ctranslate2")
    alone = generator_of(beam, 1, engine="ctranslate2")
    records = list(translate(generator_of(beam, max_tokens, engine="ctranslate2"), lines, None, buffer_size))
    assert [record.source for record in records] == lines
    for record in records:
        ((expected, *_),) = alone.generate([record.source])
        assert record.text == expected.text
        assert record.translations[0].score == pytest.approx(expected.score, abs=1e-4)


@settings(deadline=None, max_examples=5, derandomize=True)
@given(st.lists(SENTENCES, min_size=64, max_size=64), st.integers(1, 4), st.randoms())
def test_sixty_four_at_once_are_as_one_by_one_and_in_any_order(generator_of, lines, beam, random):
    together = generator_of(beam, 4096)
    one_by_one = [generator_of(beam, 1).generate([line])[0] for line in lines]
    shuffled = random.sample(range(64), 64)
    found = together.generate([lines[number] for number in shuffled])
    for number, translations in zip(shuffled, found):
        expected = one_by_one[number]
        assert [t.text for t in translations] == [t.text for t in expected]
        assert [t.score for t in translations] == pytest.approx([t.score for t in expected], abs=1e-4)


PHRASES = st.lists(st.lists(st.sampled_from(list(WORDS.values())), min_size=1, max_size=2).map(" ".join), max_size=2)


@pytest.mark.parametrize("order", ["ordered", "unordered"])
def test_phrases_of_a_line_stand_in_all_its_outputs(run_dir, order):
    search = ["search=lexically_constrained", f"search.constraints={order}", "search.beam=3", "search.nbest=3"]
    options = [f"checkpoint={run_dir}", *search, "search.max_len_b=12", "num_threads=1", "device=cpu"]
    generator = load_generator(*configured("interactive", *options))[1]

    @settings(deadline=None, max_examples=10, derandomize=True)
    @given(st.lists(st.tuples(SENTENCES.filter(bool), PHRASES), min_size=1, max_size=5))
    def check(rows):
        found = generator.generate(["\t".join([line, *phrases]) for line, phrases in rows])
        for (_, phrases), translations in zip(rows, found, strict=True):
            for each in translations:
                rest = f" {each.text} "
                for phrase in phrases:
                    assert f" {phrase} " in rest
                    if order == "ordered":  # each after the one before
                        rest = f" {rest.partition(f' {phrase} ')[2]}"

    check()


def test_scores_are_those_of_forced_decoding(run_dir, generator_of):
    restored = restore(run_dir)
    source, target = restored.task.source_vocabulary, restored.task.target_vocabulary
    for line in ("the big dog sees a cat", "a cat"):
        ((*translations,),) = generator_of(3, 4096).generate([line])
        assert len(translations) == 3
        for t in translations:
            src = torch.from_numpy(source.encode(t.source_pieces)).long()[None]
            tgt = torch.from_numpy(target.encode(t.pieces)).long()
            with torch.no_grad():
                inputs = torch.cat([torch.tensor([target.eos]), tgt[:-1]])[None]
                encoder_out = restored.model.encode(src, torch.tensor([src.size(1)]))
                scores = restored.model.project(restored.model.decode(inputs, encoder_out)).log_softmax(dim=-1)[0]
            forced = scores[range(len(tgt)), tgt]
            assert t.positional_scores == pytest.approx(forced.tolist(), abs=1e-4)
            assert t.score == pytest.approx(forced.mean().item(), abs=1e-4)


def test_an_ensemble_of_one_model_twice_is_that_model(generator_of):
    once, twice = (generator_of(2, 4096, runs).generate(["the red cat"])[0] for runs in (1, 2))
    assert [t.text for t in once] == [t.text for t in twice]
    assert [t.score for t in once] == pytest.approx([t.score for t in twice], abs=1e-5)


def test_models_with_other_vocabularies_are_no_ensemble(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(WORDS, "new", "neu")
    other = trained(tmp_path, seed=2)
    with pytest.raises(CheckpointError, match="other vocabularies"):
        generate.run(*configured("generate", f"checkpoint=[{run_dir},{other}]"))


def test_a_split_is_translated_and_scored(run_dir, tmp_path, capsys):
    out = tmp_path / "out.txt"
    bleu = generate.run(*configured("generate", f"checkpoint={run_dir}", "search.max_len_b=9", f"output_file={out}"))
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("bleu")
    assert f"{bleu:.2f}" in table[0]
    assert "tok:13a" in table[0]
    assert table[1].startswith("chrf")
    assert len(out.read_text().splitlines()) == 23


def test_another_directory_can_be_translated(run_dir, tmp_path):
    write_corpus(tmp_path / "other", seed=3)
    options = [f"data={tmp_path / 'other'}", "split=valid", "output=jsonl", f"output_file={tmp_path / 'out'}"]
    generate.run(*configured("generate", f"checkpoint={run_dir}", "search.max_len_b=9", *options))
    records = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [r["source"] for r in records] == (tmp_path / "other" / "valid.en").read_text().splitlines()
    assert [r["reference"] for r in records] == (tmp_path / "other" / "valid.de").read_text().splitlines()


def test_what_has_moved_or_is_no_corpus_is_told(run_dir, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="task.data=.*other: has no parallel text"):
        generate.run(*configured("generate", f"checkpoint={run_dir}", f"data={tmp_path / 'other'}"))
    with pytest.raises(DataError, match="no nope.en and nope.de; the splits are test, train, valid"):
        generate.run(*configured("generate", f"checkpoint={run_dir}", "split=nope"))


def test_a_batch_has_at_most_max_tokens(run_dir, monkeypatch):
    sizes = []
    searched = BeamSearch.generate

    def spy(self, models, src_tokens, src_lengths, prefix_tokens=None):
        sizes.append(src_tokens.numel())
        return searched(self, models, src_tokens, src_lengths, prefix_tokens)

    monkeypatch.setattr(BeamSearch, "generate", spy)
    generate.run(*configured("generate", f"checkpoint={run_dir}", "search.max_len_b=9", "max_tokens=20"))
    assert len(sizes) > 5
    assert max(sizes) <= 20


def test_fairseq_lines_can_be_sorted_and_cut_as_users_do(run_dir, tmp_path):
    options = ["output=fairseq", f"output_file={tmp_path / 'out'}", "search.nbest=2", "search.print_alignment=true"]
    generate.run(*configured("generate", f"checkpoint={run_dir}", "search.max_len_b=9", *options))
    lines = [line.split("\t") for line in (tmp_path / "out").read_text().splitlines()]
    by_kind = {kind: [line for line in lines if line[0].startswith(f"{kind}-")] for kind in "STHDPA"}
    assert {kind: len(found) for kind, found in by_kind.items()} == dict(zip("STHDPA", [23, 23, 46, 46, 46, 46]))
    assert [line[0] for line in by_kind["S"]] == [f"S-{i}" for i in range(23)]
    for h, d, p, a in zip(by_kind["H"], by_kind["D"], by_kind["P"], by_kind["A"]):
        positional = [float(score) for score in p[1].split()]
        assert float(h[1]) == pytest.approx(math.fsum(positional) / len(positional), abs=1e-3)
        assert h[1] == d[1]
        assert len(positional) == len(h[2].split()) + 1
        assert [pair.split("-")[1] for pair in a[1].split()] == [str(i) for i in range(len(h[2].split()))]


def test_the_input_is_never_overwritten(run_dir, tmp_path):
    given, alias = tmp_path / "a.txt", tmp_path / "b.txt"
    given.write_text("the cat\n")
    alias.symlink_to(given)
    with pytest.raises(ConfigError, match="output_file=.*b.txt: is the same file as input=.*a.txt"):
        generate.run(*configured("generate", f"checkpoint={run_dir}", f"input={given}", f"output_file={alias}"))
    assert given.read_text() == "the cat\n"


def test_a_line_that_is_too_long_is_refused_by_name(generator_of):
    lines = ["the cat"] * 7 + [" ".join(["the"] * 2000)]
    with pytest.raises(DataError, match=r"counted from line 6: line 3 .* has 2001 tokens"):
        list(translate(generator_of(1, 4096), lines, None, 5))


def test_phrases_do_not_make_a_line_too_long(run_dir):
    given = configured("interactive", f"checkpoint={run_dir}", "search=lexically_constrained", "device=cpu")
    _, generator = load_generator(*given)
    phrases, long = "the cat\t" + " ".join(["der"] * 2000), " ".join(["the"] * 2000) + "\tder"
    assert generator.too_long([phrases, long]) == [1]


def command(name: str, *overrides: str, **options) -> subprocess.Popen:
    arguments = [sys.executable, "-m", f"app.{name}", *overrides, "search.max_len_b=9", "num_threads=1"]
    pipes = {stream: subprocess.PIPE for stream in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(
        arguments, text=True, encoding="utf-8", env={**os.environ, "LC_ALL": "C"}, **pipes, **options
    )


def test_standard_input_is_translated_line_by_line(run_dir, tmp_path):
    process = command("generate", f"checkpoint={run_dir}", "input=-", "buffer_size=2", cwd=tmp_path)
    out, err = process.communicate("the cat\n\nthe dog\u2028\nsees", timeout=60)
    assert process.returncode == 0, err
    lines = out.split("\n")
    assert len(lines) == 5
    assert lines[1] == lines[4] == ""
    assert "Translated 4 sentences" in err
    assert not list(tmp_path.iterdir())


def test_interactive_answers_each_line_at_once_and_ends_quietly(run_dir, tmp_path):
    process = command("interactive", f"checkpoint={run_dir}", cwd=tmp_path)
    assert process.stdin is not None
    assert process.stdout is not None
    answers = []
    for line in ("the cat", "", " ".join(["the"] * 2000), "the dog"):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answers.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert answers[1] == answers[2] == "\n"
    assert answers[0].strip()
    assert answers[3].strip()
    assert "has 2001 tokens" in err
    assert "Traceback" not in err
