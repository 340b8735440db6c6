"""Scores are those of sacreBLEU and of fairseq, with signatures that say how they were made."""

import builtins
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from app.errors import ConfigError
from app.plugins import configure
from app.scorers import Scorer
from tests.golden.cases import claimed

CONF = Path(__file__).parents[2] / "conf" / "scorer"
golden = pytest.mark.parametrize("case", claimed("scoring", "bleu*"))


def scorer(name: str, **changes) -> Scorer:
    return configure({**OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")), **changes}, Scorer)()


@golden
def test_bleu_is_that_of_sacrebleu_and_fairseq(case):
    case = case.spec
    variants = {"13a": {}, "intl": {"tokenize": "intl"}, "char": {"tokenize": "char"}, "none": {"tokenize": "none"}}
    variants["lowercase"] = {"lowercase": True}
    for name, changes in variants.items():
        score = scorer("bleu", **changes).score(case["hypotheses"], case["references"])
        assert score.value == pytest.approx(case["sacrebleu"][name]["score"], abs=1e-6)
        assert score.text == case["sacrebleu"][name]["format"]


@golden
def test_chrf_and_ter_are_those_of_sacrebleu(case):
    case = case.spec
    for name in ("chrf", "ter"):
        score = scorer(name).score(case["hypotheses"], case["references"])
        assert score.value == pytest.approx(case[f"sacrebleu_{name}"]["score"], abs=1e-6)


@golden
def test_wer_is_that_of_fairseq(case):
    case = case.spec
    for name, changes in {
        "wer": {},
        "cer": {"char_level": True},
        "wer_options": {"lowercase": True, "remove_punct": True},
    }.items():
        score = scorer("wer", **changes).score(case["hypotheses"], case["references"])
        assert score.value == pytest.approx(case["fairseq_scorers"][f"fairseq_scorer_{name}"]["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "part"),
    [
        ("bleu", {}, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"),
        ("bleu", {"lowercase": True, "tokenize": "intl"}, "case:lc|eff:no|tok:intl"),
        ("bleu", {"effective_order": True}, "eff:yes"),
        ("chrf", {"word_order": 2}, "nc:6|nw:2"),
        ("ter", {"no_punct": True}, "punct:no"),
        ("wer", {"char_level": True, "lowercase": True}, "case:lc|level:char|punct:yes|jiwer:"),
    ],
)
def test_signatures_say_what_changes_the_number(name, changes, part):
    assert part in scorer(name, **changes).score(["a b c d"], ["a b c e"]).signature


@pytest.mark.parametrize(
    ("name", "hypotheses", "references", "changes", "expected"),
    [
        ("bleu", ["a b c d e"], ["a b c d e"], {}, 100.0),
        ("bleu", ["a a", "c"], ["a b", "c"], {"max_ngram_order": 1}, 100 * 2 / 3),
        ("chrf", ["abc"], ["abc"], {}, 100.0),
        ("chrf", ["ab"], ["ac"], {"char_order": 1}, 50.0),
        ("ter", ["a b c d"], ["a b c e"], {}, 25.0),
        ("ter", ["A B"], ["a b"], {"case_sensitive": True}, 100.0),
        ("wer", ["a x", "c"], ["a b", "c d"], {}, 50.0),
        ("wer", ["A b ."], ["a b"], {"lowercase": True, "remove_punct": True}, 0.0),
        ("wer", [""], [""], {}, 0.0),
    ],
)
def test_scores_that_can_be_worked_out_by_hand(name, hypotheses, references, changes, expected):
    assert scorer(name, **changes).score(hypotheses, references).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("bleu", {"tokenize": "moses"}, "tokenize=moses"),
        ("bleu", {"smooth_method": "none_of_them"}, "smooth_method="),
        ("bleu", {"max_ngram_order": 0}, "max_ngram_order=0"),
        ("chrf", {"beta": 0}, "beta=0"),
        ("chrf", {"word_order": -1}, "word_order=-1"),
    ],
)
def test_bad_values_are_named(name, changes, fault):
    with pytest.raises(ConfigError, match=fault):
        scorer(name, **changes)


def test_a_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without_jiwer(name, *args, **kwargs):
        if name == "jiwer":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_jiwer)
    with pytest.raises(ConfigError, match=r"pip install 'seqwright\[wer\]'"):
        scorer("wer")
