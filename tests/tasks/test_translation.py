"""The translation task: from two text files to batches and back to text."""

import gzip
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.data.large import LargeWeights
from app.data.pair_rows import PairRows
from app.data.vocabulary import Vocabulary
from app.errors import DataError
from app.interfaces import Model
from app.search import Hypothesis, Search
from app.tasks import text
from app.tasks.corpora import language_pair, read_corpora
from app.tasks.translation import Translation, TranslationConfig
from app.tokenizers import Tokenizer
from app.tokenizers.char import Char, CharConfig
from app.tokenizers.pretokenized import Pretokenized, PretokenizedConfig
from app.tokenizers.sentencepiece import SentencePiece, SentencePieceConfig
from tests.runs import batching_config

SOURCE = ["a b c", "d e", "", "f g h i j k l", "a a a"]
TARGET = ["A B C", "D E", "X", "F", ""]
BATCHING = batching_config(max_tokens=20, max_tokens_valid=20)


def pretokenized() -> Tokenizer:
    return Pretokenized(PretokenizedConfig())


def write(directory: Path, split: str, source: list[str], target: list[str]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / f"{split}.en").write_text("".join(f"{line}\n" for line in source))
    (directory / f"{split}.xx.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in target).encode()))
    return directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data", "train", SOURCE, TARGET)
    return write(tmp_path / "data", "valid", ["a z"], ["A"])


def config(data: Any) -> TranslationConfig:
    return TranslationConfig(
        data=data if data is None or isinstance(data, list) else str(data),
        source_lang="en",
        target_lang="xx",
        train_split="train",
        joined_dictionary=False,
        threshold=0,
        nwords=0,
        max_source_positions=6,
        max_target_positions=6,
        load_alignments=False,
        langs=None,
        prepend_bos=False,
        on_bad_line="error",
        num_workers=1,
    )


def prepared(
    cfg: TranslationConfig, cache: Path, make: Callable[[], Tokenizer] = pretokenized, window: int = 0
) -> Translation:
    task = Translation(cfg, make, replace(BATCHING, window=window))
    task.prepare(cache)
    return task


def test_vocabularies_follow_the_training_text(data: Path, tmp_path: Path) -> None:
    task = prepared(config(data), tmp_path / "cache")
    assert task.source_vocabulary.pieces[4:7] == ["a", "b", "c"]
    assert task.target_vocabulary.index("A") != Vocabulary.unk == task.target_vocabulary.index("a")
    joined = prepared(replace(config(data), joined_dictionary=True), tmp_path / "cache")
    assert joined.source_vocabulary is joined.target_vocabulary
    assert {"a", "A"} < set(joined.source_vocabulary.pieces)
    small = prepared(replace(config(data), threshold=2, nwords=5), tmp_path / "cache")
    assert [piece for piece in small.source_vocabulary.pieces if "madeup" not in piece][4:] == ["a"]


def test_pairs_that_training_cannot_use_are_counted_and_said(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = prepared(config(data), tmp_path / "cache")
    with caplog.at_level(logging.INFO):
        dataset = task.dataset("train")
    assert len(dataset) == 2
    assert dataset.left_out["empty on one side"] == 2
    assert "train: 2 pairs; left out: 2 empty on one side, 1 over max_source_positions=6" in caplog.text
    (batch,) = task.get_batch_iterator(dataset)
    source, target = task.source_vocabulary, task.target_vocabulary
    assert [source.decode(row.tolist()) for row in batch.src_tokens] == [["d", "e", "<pad>"], ["a", "b", "c"]]
    assert [target.decode(row.tolist()) for row in batch.target] == [["D", "E", "<pad>"], ["A", "B", "C"]]


def test_longest_kept_is_the_limit_with_eos(data: Path, tmp_path: Path) -> None:
    for limit, kept in ((8, 3), (7, 2), (4, 2), (3, 1)):
        task = prepared(replace(config(data), max_source_positions=limit), tmp_path / "cache")
        assert len(task.dataset("train")) == kept


def test_references_are_the_raw_lines_and_all_of_them(data: Path, tmp_path: Path) -> None:
    task = Translation(config(data), pretokenized, BATCHING)
    assert task.references("train") == (SOURCE, TARGET)
    with pytest.raises(DataError, match=r"no dev.en and dev.xx; the splits are train, valid"):
        task.references("dev")


def test_bad_line_stops_or_is_left_out_but_never_shifts_lines(data: Path, tmp_path: Path) -> None:
    (data / "train.en").write_bytes(b"a b c\ncaf\xe9\n\nf g\na a a\n")
    with pytest.raises(DataError, match=r"train.en: line 2 is not UTF-8 \(byte 0xe9 at column 4\)"):
        prepared(config(data), tmp_path / "cache")
    task = prepared(replace(config(data), on_bad_line="skip"), tmp_path / "cache")
    dataset = task.dataset("train")
    assert (len(dataset), dataset.left_out["with a bad line"]) == (2, 1)
    assert task.references("train")[0] == ["a b c", "caf\ufffd", "", "f g", "a a a"]


def test_unequal_files_are_refused(data: Path, tmp_path: Path) -> None:
    (data / "valid.en").write_text("a\nb\n")
    task = prepared(config(data), tmp_path / "cache")
    for use in (task.dataset, task.references):
        with pytest.raises(DataError, match=r"valid.en has 2 lines and .*valid.xx.gz has 1"):
            use("valid")


def test_split_without_a_usable_pair_is_refused(data: Path, tmp_path: Path) -> None:
    write(data, "empty", ["", "a"], ["A", ""])
    with pytest.raises(DataError, match="empty: no pair is left to use .2 empty on one side"):
        prepared(config(data), tmp_path / "cache").dataset("empty")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines that are encoded for a store while the test runs."""
    seen: list[str] = []
    original = text.Text.encode_lines

    def spy(self: text.Text, lines: Any) -> Any:
        seen.extend(lines)
        return original(self, lines)

    monkeypatch.setattr(text.Text, "encode_lines", spy)
    return seen


def test_cache_is_found_again_and_never_stale(data: Path, tmp_path: Path, reads: list[str]) -> None:
    def prepare(cfg: TranslationConfig, make: Callable[[], Tokenizer] = pretokenized) -> int:
        reads.clear()
        prepared(cfg, tmp_path / "cache", make).dataset("train")
        return len(reads)

    cfg = config(data)
    assert prepare(cfg) == 10
    assert prepare(cfg) == 0
    assert prepare(replace(cfg, max_source_positions=4, num_workers=2)) == 0  # of no matter to what is stored
    assert prepare(replace(cfg, joined_dictionary=True)) == 10
    assert prepare(cfg, lambda: Char(CharConfig())) == 10
    copy = write(tmp_path / "copy", "train", SOURCE, TARGET)
    (copy / "train.xx.gz").write_bytes((data / "train.xx.gz").read_bytes())
    assert prepare(replace(cfg, data=str(copy))) == 0  # content counts, not the place
    (data / "train.en").write_text("a b c\nd e\n\nf g h i j k l\na a b\n")  # same size
    assert prepare(cfg) == 10


def test_run_directory_needs_nothing_else(data: Path, tmp_path: Path) -> None:
    def make() -> Tokenizer:
        return SentencePiece(SentencePieceConfig(None, "unigram", 24, 1.0, "identity", False, 0, 1))

    for joined in (True, False):
        cfg = replace(config(data), joined_dictionary=joined)
        task = prepared(cfg, tmp_path / "cache", make)
        task.save(tmp_path / f"run-{joined}")
        loaded = Translation(replace(cfg, data=None), make, BATCHING)
        loaded.load(tmp_path / f"run-{joined}")
        assert loaded.source_vocabulary == task.source_vocabulary
        assert loaded.target_vocabulary == task.target_vocabulary
        assert loaded.source.fingerprint() == task.source.fingerprint()


def test_guessed_languages_stay_those_of_the_run(data: Path, tmp_path: Path) -> None:
    cfg = replace(config(data), source_lang=None, target_lang=None)
    prepared(cfg, tmp_path / "cache").save(tmp_path / "run")
    for lang in ("aa", "bb"):  # first in alphabetical order, and here now
        (data / f"valid.{lang}").write_text("?\n")
    task = Translation(cfg, pretokenized, BATCHING)
    task.load(tmp_path / "run")
    assert task.references("valid") == (["a z"], ["A"])
    other = replace(cfg, source_lang="aa", target_lang="bb")  # what is asked for is not overruled
    task = Translation(other, pretokenized, BATCHING)
    task.load(tmp_path / "run")
    assert task.references("valid") == (["?"], ["?"])


def test_languages_that_cannot_be_guessed_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no text in two languages; give task.data=DIRECTORY"):
        language_pair(read_corpora(str(tmp_path / "empty")), None, "en")


def test_a_large_corpus_is_counted_once_and_has_the_same_pairs(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = prepared(config(data), tmp_path / "cache", window=4)
    with caplog.at_level(logging.INFO):
        dataset = task.dataset("train")
    assert isinstance(dataset.weights, LargeWeights)
    assert "train: 2 pairs; left out: 2 empty on one side, 1 over max_source_positions=6" in caplog.text
    assert isinstance(task.dataset("valid").weights, np.ndarray)
    monkeypatch.delattr(PairRows, "tally")
    again = task.dataset("train")
    assert (len(again), again.left_out) == (2, dataset.left_out)
    for epoch in (None, 1):
        seen = [row for batch in task.get_batch_iterator(again, epoch) for row in batch.src_tokens[:, :2].tolist()]
        expected = [task.source_vocabulary.encode(line.split())[:2].tolist() for line in SOURCE[:2]]
        assert sorted(seen) == sorted(expected)


def test_a_large_corpus_of_which_nothing_can_be_used(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train: no pair is left to use"):
        prepared(replace(config(data), max_source_positions=1), tmp_path / "cache", window=4).dataset("train")


def test_loaded_vocabulary_is_kept_when_data_is_prepared(data: Path, tmp_path: Path) -> None:
    prepared(config(data), tmp_path / "cache").save(tmp_path / "run")
    other = write(tmp_path / "other", "train", ["q r s"], ["Q R S"])
    task = Translation(config(other), pretokenized, BATCHING)
    task.load(tmp_path / "run")
    task.prepare(tmp_path / "cache")
    assert task.source_vocabulary.index("q") == Vocabulary.unk
    assert task.dataset("train").source[0].tolist() == [3, 3, 3, 2]


def test_several_directories_are_mixed_by_weight(data: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more", "train", ["d", "a"], ["D", "A"])
    task = prepared(config([str(data), {"path": str(more), "weight": 3}]), tmp_path / "cache")
    dataset = task.dataset("train")
    assert dataset.weights.tolist() == [1, 1, 3, 3]
    assert sum(len(batch) for batch in task.get_batch_iterator(dataset, 1)) == 8
    assert len(task.dataset("valid")) == 1  # only one of the directories has it
    large = prepared(task.cfg, tmp_path / "cache", window=7)  # there are seven rows, and eleven samples of an epoch
    assert isinstance(large.dataset("train").weights, LargeWeights)
    assert sum(len(batch) for batch in large.get_batch_iterator(large.dataset("train"), 1)) == 8


def test_languages_are_guessed_where_two_exist(data: Path) -> None:
    corpora = read_corpora(str(data))
    assert language_pair(corpora, None, None) == ("en", "xx")
    assert language_pair(corpora, "xx", None) == ("xx", "en")
    assert language_pair(corpora, None, "en") == ("xx", "en")


FAULTS = [
    ({"data": "DATA/nowhere"}, r"data=.*nowhere: no such directory; in .*data there are train.en, train.xx.gz"),
    ({"data": "DATA/.."}, r"data=.*: has no parallel text \(SPLIT.LANG or SPLIT.LANG.gz\); there are data"),
    ({"data": 3}, "data=3: 3 is neither a directory nor"),
    ({"data": [{"path": "DATA", "wieght": 2}]}, "neither a directory nor"),
    ({"data": [{"path": "DATA", "weight": -1}]}, "weights must be 0 or more"),
    ({"data": []}, "weights must be"),
    ({"source_lang": "fr"}, "source_lang=fr: .* has no SPLIT.fr; its languages are en, xx"),
    ({"source_lang": "xx"}, "target_lang=xx: is the source's language too"),
    ({"max_source_positions": 0}, "max_source_positions=0: must be greater than 0"),
    ({"on_bad_line": "ignore"}, "on_bad_line=ignore: must be one of error, skip"),
    ({"threshold": -1}, "threshold=-1"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=lambda value: str(value))
def test_settings_are_checked(data: Path, change: dict[str, Any], message: str) -> None:
    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: here(child) for key, child in value.items()}
        if isinstance(value, list):
            return [here(child) for child in value]
        return value.replace("DATA", str(data)) if isinstance(value, str) else value

    cfg = replace(config(data), **here(change))
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(cfg.check()))


def test_good_settings_have_no_faults(data: Path) -> None:
    assert list(config(data).check()) == []
    assert list(replace(config(data), source_lang=None, target_lang=None).check()) == []
    assert list(config(None).check()) == []


class Echo(Search):
    """Outputs the source, in the order it came, and remembers what was asked."""

    def __init__(self, cfg: Any = None, vocabulary: Any = None):
        self.batches: list[tuple[int, ...]] = []

    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        assert not any(model.training for model in models)
        self.batches.append(tuple(src_tokens.shape))
        rows = [row[:length] for row, length in zip(src_tokens, src_lengths.tolist())]
        return [[Hypothesis(row, -1.0, -row.float(), torch.eye(len(row)))] * 2 for row in rows]


class Nothing(nn.Module):
    refines = False
    max_positions = (6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@pytest.fixture
def task(data: Path, tmp_path: Path) -> Iterator[Translation]:
    return prepared(replace(config(data), joined_dictionary=True, max_source_positions=10), tmp_path / "cache")


@pytest.mark.parametrize("count", range(18))
def test_every_line_comes_back_in_its_place(task: Translation, count: int) -> None:
    lines = [" ".join("abcde"[i % 5] for i in range(n * 7 % 6)) for n in range(count)]
    search = Echo()
    translations = task.build_generator([Nothing()], search).generate(lines)  # type: ignore[list-item]
    assert [best[0].text for best in translations] == lines
    assert all(rows * width <= 20 for rows, width in search.batches)
    assert sum(rows for rows, _ in search.batches) == sum(bool(line) for line in lines)


def test_translation_has_its_numbers(task: Translation) -> None:
    model = Nothing()
    ((best, second),) = task.build_generator([model], Echo()).generate(["b a"])  # type: ignore[list-item]
    assert best == second
    assert (best.text, best.pieces, best.source_pieces) == ("b a", ["b", "a"], ["b", "a"])
    assert best.positional_scores == [-float(i) for i in task.source_vocabulary.encode(["b", "a"])]
    assert best.alignment == [0, 1]
    assert model.training  # as it was found


def test_empty_line_has_an_empty_translation_and_no_model_is_asked(task: Translation) -> None:
    search = Echo()
    ((best,), (other,)) = task.build_generator([Nothing()], search).generate(["", " \t"])  # type: ignore[list-item]
    assert (best.text, best.pieces, other.text, search.batches) == ("", [], "", [])


def test_line_over_the_limit_is_refused_by_name(task: Translation) -> None:
    with pytest.raises(DataError, match=r"line 2 .'a a a a a a.*has 7 tokens, more than 6"):
        task.build_generator([Nothing()], Echo()).generate(["a", "a a a a a a"])  # type: ignore[list-item]
