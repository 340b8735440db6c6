"""Every configuration that cannot work is refused at once: exit code 2, one message, nothing left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from app import cli
from app.cli import command
from app.errors import ConfigError
from tests.faults.victims import SOAK, Record

LANGUAGES = ["task.source_lang=xx", "task.target_lang=yy"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a corpus in `data`."""
    (tmp_path / "data").mkdir()
    for name in ("train.xx", "train.yy", "valid.xx", "valid.yy"):
        (tmp_path / "data" / name).write_text("a b c\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(cli, "log_to_stderr", lambda: None)  # it would take pytest's own handlers away
    return tmp_path


def never(cfg: Any, plugins: Any) -> None:
    raise AssertionError("a run was started")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line that cannot work is answered on stderr, after what all such answers have in common."""
    before = sorted(path for path in Path().rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *arguments])
        with pytest.raises(SystemExit) as stopped:
            command("train", never)()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2, err
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert lines[0].startswith("app.train: ")
    assert len(lines) <= 12 + int(lines[0].split()[1])
    assert sorted(path for path in Path().rglob("*")) == before
    return err


GOOD = ["task.data=data", *LANGUAGES]

BAD = [
    # places and numbers of the whole run
    ("run_dir=data/train.xx", "train.xx is not a directory"),
    ("cache_dir=data/train.xx/below", "train.xx is not a directory"),
    (f"run_dir=data/{'a' * 300}", "File name too long; give another path"),
    (f"task.data={'a' * 300}", "File name too long; give another path"),
    ("seed=-1", "seed=-1: must be 0 or more"),
    # the metric that says which checkpoint is best
    ("checkpoint.metric=bleu", "the best bleu is the max; set checkpoint.mode=max"),
    ("checkpoint.mode=max", "the best loss is the min; set checkpoint.mode=min"),
    ("batching.max_tokens_valid=100", "batching.max_tokens_valid=100: smaller than the longest sentence"),
    # names
    ("model=transfomer", "model=transfomer: no such option of model; the nearest is transformer"),
    ("task=translate", "task=translate: no such option of task; the nearest is translation"),
    ("criterion=crossentropy", "the nearest is cross_entropy"),
    ("optimizer=adamm", "the nearest is adam"),
    ("lr_scheduler=inverse", "no such option of lr_scheduler"),
    ("tokenizer=sentence_piece", "the nearest is sentencepiece"),
    ("search=beem", "the nearest is beam"),
    ("scorer=[bleu,crf]", "scorer=[bleu,crf]"),
    ("tracker=[wandbb]", "tracker=[wandbb]"),
    ("precision=bf61", "the nearest is bf16"),
    ("experiment=no_such_recipe", "no such option of experiment"),
    ("debug=faster", "no such option of debug"),
    ("model.dropuot=0.2", "model.dropuot=0.2: no such key; the nearest is model.dropout"),
    ("optimizer.learning_rate=1", "optimizer.learning_rate=1: no such key"),
    ("trainer.max_updates=1", "the nearest is trainer.max_update"),
    ("sed=3", "sed=3: no such key; the nearest is seed"),
    ("+typo=1", "typo: no such key"),
    ("++typo=1", "typo: no such key"),
    ("+model.typo=1", "model.typo: no such key"),
    ("+optimizer.typo=1", "optimizer.typo: no such key"),
    ("+trainer.typo=1", "trainer.typo"),
    ("+scorer.bleu.typo=1", "scorer.bleu.typo: no such key"),
    ("+lr_scheduler.warmup=1", "lr_scheduler.warmup: no such key"),
    # types
    ("model.dropout=abc", "model.dropout=abc: must be a number"),
    ("model.encoder_layers=2.5", "model.encoder_layers=2.5: must be a whole number"),
    ("model.share_all_embeddings=perhaps", "model.share_all_embeddings=perhaps: must be true or false"),
    ("model={a:1}", "model={a:1}"),
    ("model=3", "model=3: no such option"),
    ("trainer.max_update=abc", "trainer.max_update=abc: must be a whole number"),
    ("trainer.decode_valid=maybe", "trainer.decode_valid=maybe: must be true or false"),
    ("trainer={max_update:3.5}", "trainer"),
    ("seed=one", "seed=one: must be a whole number"),
    ("optimizer.lr=fast", "optimizer.lr=fast: must be a number"),
    ("optimizer.betas=0.9", "optimizer.betas"),
    ("lr_scheduler.warmup_updates=[4000]", "lr_scheduler.warmup_updates"),
    ("tokenizer.vocab_size=many", "tokenizer.vocab_size=many: must be a whole number"),
    ("search.beam=wide", "search.beam=wide: must be a whole number"),
    ("scorer.bleu.lowercase=both", "scorer.bleu.lowercase=both: must be true or false"),
    # values
    ("model.dropout=1.5", "model.dropout=1.5: must be 0 or more and less than 1"),
    ("model.encoder_attention_heads=7", "model.encoder_attention_heads=7: must divide encoder_embed_dim=512"),
    ("model.encoder_layers=0", "model.encoder_layers=0: must be greater than 0"),
    ("model.activation_fn=rellu", "model.activation_fn=rellu: must be one of"),
    ("optimizer.lr=nan", "optimizer.lr=nan: must be a finite number"),
    ("optimizer.lr=1e999", "optimizer.lr=inf: must be a finite number"),
    ("optimizer.lr=-1", "optimizer.lr=-1"),
    ("optimizer.betas=[0.9,1.5]", "optimizer.betas"),
    ("criterion.label_smoothing=-0.1", "criterion.label_smoothing=-0.1"),
    ("lr_scheduler.warmup_updates=-1", "lr_scheduler.warmup_updates=-1: must be 0 or more"),
    ("precision.dtype=fp8", "precision.dtype=fp8: must be one of"),
    ("search.beam=0", "search.beam=0: must be greater than 0"),
    ("search.nbest=9", "search.nbest=9: must not be more than beam=5"),
    ("tokenizer.vocab_size=0", "tokenizer.vocab_size=0: must be greater than 0"),
    ("trainer.update_freq=0", "trainer.update_freq=0: must be greater than 0"),
    ("trainer.clip_norm=-1", "trainer.clip_norm=-1.0: must be 0 or more"),
    ("trainer.clip_norm=inf", "trainer.clip_norm=inf: must be a finite number"),
    ("trainer.max_update=0", "trainer.max_update: nothing would ever end this run"),
    ("trainer.device=gpu", "trainer.device=gpu: must be auto, cpu, cuda"),
    ("checkpoint.mode=least", "checkpoint.mode=least: must be one of min, max"),
    ("checkpoint.metric=blue", "checkpoint.metric=blue: this run will have loss, nll_loss, ppl, bleu, chrf"),
    ("batching.max_tokens=0", "batching.max_tokens=0: must be a whole number greater than 0, or auto"),
    ("batching.max_tokens=100", "batching.max_tokens=100: smaller than task.max_source_positions"),
    ("seed=???", "seed: missing"),
    ("model.dropout=${nope}", "model.dropout: Interpolation key 'nope' not found"),
    ("tokenizer=subword_bpe", "tokenizer.codes: missing; give it with tokenizer.codes=..."),
    ("~search", "search: nothing is chosen"),
    # places
    ("task.data=nowhere", "task.data=nowhere: no such directory"),
    ("task.data=null", "trainer.train_split: task.data=null"),
    ("task.data={a:1}", "task.data={'a': 1}"),
    ("task.target_lang=zz", "task.target_lang=zz: data has no SPLIT.zz; its languages are xx, yy"),
    ("task.target_lang=xx", "task.target_lang=xx: is the source's language too"),
    ("trainer.train_split=all", "trainer.train_split: data: no all.xx and all.yy; the splits are train, valid"),
    ("trainer.valid_split=dev", "trainer.valid_split: data: no dev.xx and dev.yy; the splits are train, valid"),
    ("checkpoint.finetune_from=nowhere", "checkpoint.finetune_from=nowhere"),
    ("tokenizer.model=nowhere.model", "tokenizer.model=nowhere.model: no such file"),
    ("hydra.searchpath=[file:///nowhere/conf]", "hydra.searchpath=[file:///nowhere/conf]: no such directory"),
    ("hydra.searchpath=[pkg://no_such_package.conf]", "no package no_such_package"),
    # targets
    ("model._target_=torch.load", "model._target_=torch.load: not allowed"),
    ("criterion._target_=os.system", "criterion._target_=os.system: not allowed"),
    ("optimizer._target_=torch.optim.LBFGS", "optimizer._target_=torch.optim.LBFGS: not allowed"),
    ("task._target_=app.models.transformer.Transformer", "must be a complete subclass of app.interfaces.Task"),
    # the command line itself
    ("model.dropout", "cannot be read"),
    ("a b=3", "cannot be read"),
    ("model.dropout=[0.1", "cannot be read"),
    ("seed=1,2,3", "seed=1,2,3: several values are a sweep, which needs -m"),
]


@pytest.mark.fault("F28")
@pytest.mark.parametrize(("bad", "words"), BAD, ids=[bad for bad, _ in BAD])
def test_a_bad_configuration_is_refused(bad: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in told(capsys, *GOOD, bad)


def test_a_directory_that_cannot_be_made_is_told(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *GOOD, f"run_dir=outputs/{'a' * 300}"])
    with pytest.raises(SystemExit) as stopped:
        command("train", never)()
    assert stopped.value.code == 5
    err = capsys.readouterr().err
    assert "File name too long; give another run_dir" in err
    assert "Traceback" not in err


def test_rules_between_sections(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = told(capsys, *GOOD, "task.joined_dictionary=false", "model.share_all_embeddings=true")
    assert "model.share_all_embeddings=true: needs one vocabulary; set task.joined_dictionary=true" in err
    err = told(capsys, *GOOD, "scorer=[ter]", "checkpoint.metric=ter", "checkpoint.mode=max")
    assert "checkpoint.mode=max: the best ter is the min; set checkpoint.mode=min" in err
    err = told(capsys, *GOOD, "criterion=adaptive_loss")
    assert "criterion: AdaptiveLoss is for models with an adaptive softmax; set model.adaptive_softmax_cutoff" in err
    labels = ["task=sentence_prediction", "task.data=null", "model=roberta", "criterion=sentence_prediction"]
    err = told(capsys, *labels, "task.classification_head_name=other")
    assert "task.classification_head_name=other: is not criterion.classification_head_name=sentence_cl" in err
    pairs = ["task=multilingual_translation", "task.lang_pairs=[xx-yy,yy-xx]", "model=multilingual_transformer"]
    err = told(capsys, *pairs, "task.data=data", "task.joined_dictionary=false", "model.share_decoders=true")
    assert "model.share_decoders=true: xx, yy need one vocabulary; set task.joined_dictionary=true" in err
    text = ["task=language_modeling", "task.data=data", "task.lang=xx", "model=transformer_lm"]
    err = told(capsys, *text, "checkpoint.metric=bleu", "checkpoint.mode=max")
    assert "checkpoint.metric=bleu: this run will have loss, nll_loss, ppl" in err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task=translation_lev", "task.prepend_bos=true"], "task.prepend_bos=True: is of task translation alone"),
        (["task=translation_lev", "task.load_alignments=true"], "task.load_alignments=True: is of task translation"),
        (["task=denoising", "task.lang=xx", "task.add_lang_token=true"], "set langs, such as [xx]"),
    ],
)
def test_options_without_an_effect_are_refused(
    overrides: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in told(capsys, "task.data=data", *overrides)


def test_all_faults_come_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [
        "model=transfomer",
        "model.dropuot=1",
        "trainer.update_freq=0",
        "optimizer.lr=nan",
        "+typo=1",
        "a b",
        *LANGUAGES,
    ]
    err = told(capsys, *bad)
    for word in ("transfomer", "dropuot", "update_freq", "optimizer.lr", "typo", "a b", "task.data: missing"):
        assert word in err


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        (["model.dropout=0.1,1.5"], "model.dropout=1.5: must be 0 or more and less than 1 (at model.dropout=1.5)"),
        (["model=transformer,transfomer"], "model=transfomer: no such option of model"),
        (["seed=1,2", "search.beam=0"], "search.beam=0: must be greater than 0\n"),
        (["seed=range(1,3)", "model.dropout=0.1,abc"], "(at seed=1 model.dropout=abc and 1 more)"),
        (["seed=range(1,"], "cannot be read"),
    ],
)
def test_every_point_of_a_sweep_is_checked(
    sweep: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in told(capsys, "-m", *GOOD, *sweep)


def test_a_sweep_that_stands_in_a_file_is_checked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine" / "experiment").mkdir(parents=True)
    lines = ["# @package _global_", "hydra:", "  sweeper:", "    params:", "      optimizer.lr: 1e-3,nan"]
    (here / "mine" / "experiment" / "rates.yaml").write_text("\n".join(lines))
    err = told(capsys, "-cd", "mine", "-m", *GOOD, "experiment=rates")
    assert "optimizer.lr=nan: must be a finite number (at optimizer.lr=nan)" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defaults: [transfomer]\n", "Could not load 'model/transfomer'"),
        ("defaults: [transformer]\ndropuot: 1\n", "model.dropuot: no such key; the nearest is model.dropout"),
        ("dropout: 0.1\n", "model: has no _target_"),
        ("a: [\n", "mine.yaml:2: "),
        ("a: 1\n  b: 2\n", "mine.yaml:2: "),
        ("- a\n", "model: has no _target_"),
    ],
)
def test_a_fault_in_a_users_yaml_is_told(text: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "mine.yaml").write_text(text)
    assert words in told(capsys, "hydra.searchpath=[file://conf]", *GOOD, "model=mine")


def test_a_pickled_job_is_not_run_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--experimental-rerun" in told(capsys, "--experimental-rerun", "job.pickle")


KEYS = [
    "sys",
    "scorer",
    "scorer.bleu.lowercase",
    "output",
    "hydra",
    "hydra.run.dir",
    "hydra.mode",
    "+x",
    "~scorer",
    "++y.z",
    "",
]
VALUES = [
    "=",
    "",
    "=nan",
    "=[",
    "={",
    "=a,b",
    "=\x00",
    "=../../x",
    "=${",
    "=${x}",
    "='",
    "=" + 300 * "a",
    "=null",
    "=???",
]
malformed = st.one_of(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map("".join),
    st.text(st.characters(codec="utf-8", exclude_characters="-"), max_size=30),
    st.text("+~=[]{}()'\"\\$,:.@ ab1", max_size=12),
)


@pytest.mark.fault("F27")
def test_malformed_overrides_never_give_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    """Ten at once: 300 of them, and 3,000 for `make faults`. None makes a directory or takes long."""
    wanted, tried, slowest = 3000 if SOAK else 300, 0, 0.0
    monkeypatch.chdir(tmp_path)
    cli.store_schema("score")

    @settings(
        max_examples=wanted // 10,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    @given(overrides=st.lists(malformed, min_size=10, max_size=10))
    @example(
        ["+hydra=nan", "+=x", "sys=" + 5000 * "9", "scorer=" + 300 * "x", "scorer=${x}", "scorer.bleu=${x}"]
        + ["scorer={a:1}"]
    )
    def refuse(overrides: list[str]) -> None:
        nonlocal tried, slowest
        tried, began = tried + len(overrides), time.monotonic()
        with pytest.raises(ConfigError) as refused:  # `ref` at least is missing
            cli.check_command_line(cli.arguments("score", ["--", *overrides]))
        slowest = max(slowest, time.monotonic() - began)
        for fault in refused.value.faults:
            assert fault.isprintable()
            assert len(fault) < 500

    refuse()
    assert tried >= wanted
    assert slowest < 20  # two seconds each
    assert list(tmp_path.iterdir()) == []
    record_property("tries", tried)


def test_the_command_itself_says_so(here: Path) -> None:
    """As a user meets it: the same in a process of its own."""
    process = [sys.executable, "-m", "app.train", "model.dropuot=0.2", *LANGUAGES]
    done = subprocess.run(process, capture_output=True, text=True, cwd=here, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "app.train: 2 faults in the configuration, nothing was started",
        "  model.dropuot=0.2: no such key; the nearest is model.dropout",
        "  task.data: missing; give it with task.data=...",
        "--help lists the options of every group, --cfg job shows the whole configuration",
    ]
    assert [path.name for path in here.iterdir()] == ["data"]
