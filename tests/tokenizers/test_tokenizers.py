"""Tokenizers: what goes in comes out; what was learnt is the same every time, saved, loaded and sent to workers."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, DataError
from app.tokenizers import Tokenizer
from app.tokenizers.byte import Byte, ByteConfig
from app.tokenizers.char import Char, CharConfig
from app.tokenizers.pretokenized import Pretokenized, PretokenizedConfig
from app.tokenizers.sentencepiece import SentencePiece, SentencePieceConfig
from app.tokenizers.subword_bpe import SubwordBPE, SubwordBPEConfig
from app.tokenizers.word import Word, WordConfig

TEXT = [f"The {animal} sees {n} {thing}s, doesn't it?" for n in range(12) for animal in ("cat", "dog", "über-hen")
        for thing in ("house", "mouse", "tree", "stone")]  # fmt: skip
ORDINARY = [*TEXT[:3], "a  b", " leads", "trails ", "", "Well, go!", "ein Mädchen (3,5 km)", "\u2028 \x85 \t"]
LINES = st.text(st.characters(exclude_characters="▁\n", exclude_categories=["Cs"]))


def sentencepiece_config(
    model: str | None = None, model_type: str = "unigram", vocab_size: int = 80, normalization: str = "identity"
) -> SentencePieceConfig:
    return SentencePieceConfig(model, model_type, vocab_size, 1.0, normalization, False, 0, 1)


def learned(cfg: SentencePieceConfig) -> SentencePiece:
    tokenizer = SentencePiece(cfg)
    tokenizer.train(TEXT)
    return tokenizer


@pytest.fixture(scope="module")
def unigram() -> SentencePiece:
    return learned(sentencepiece_config())


@given(line=LINES)
@pytest.mark.parametrize(
    "tokenizer", [Char(CharConfig()), Byte(ByteConfig()), Word(WordConfig())], ids=["char", "byte", "word"]
)
def test_reversible_for_any_line(tokenizer: Tokenizer, line: str) -> None:
    pieces = tokenizer.encode(line)
    assert tokenizer.decode(pieces) == line
    assert not any(" " in piece or "\n" in piece or not piece for piece in pieces)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_is_reversible(model_type: str) -> None:
    tokenizer = learned(sentencepiece_config(model_type=model_type))
    for line in ORDINARY:
        assert tokenizer.decode(tokenizer.encode(line)) == line
    assert max(len(piece) for line in TEXT for piece in tokenizer.encode(line)) > 2


def test_word_splits_off_punctuation() -> None:
    assert Word(WordConfig()).encode("Well, go!") == ["▁Well", ",", "▁go", "!"]
    assert Word(WordConfig()).encode("") == []


def test_byte_spells_utf8_and_survives_broken_sequences() -> None:
    tokenizer = Byte(ByteConfig())
    assert tokenizer.encode("Aé") == ["<0x41>", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(["<0x41>", "<0xC3>", "<unk>"]) == "A\ufffd"


def test_pretokenized_splits_on_white_space() -> None:
    tokenizer = Pretokenized(PretokenizedConfig())
    assert tokenizer.encode("  der  Baum\t. ") == ["der", "Baum", "."]
    assert tokenizer.decode(["der", "Baum", "."]) == "der Baum ."


def test_sentencepiece_learns_the_same_model_every_time(unigram: SentencePiece, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    unigram.save(tmp_path / "a")
    learned(sentencepiece_config()).save(tmp_path / "b")
    assert (tmp_path / "a/sentencepiece.model").read_bytes() == (tmp_path / "b/sentencepiece.model").read_bytes()


def test_sentencepiece_is_saved_loaded_pickled_and_taken_from_a_file(unigram: SentencePiece, tmp_path: Path) -> None:
    unigram.save(tmp_path)
    loaded = SentencePiece(sentencepiece_config())
    loaded.load(tmp_path)
    given_file = SentencePiece(sentencepiece_config(model=str(tmp_path / "sentencepiece.model")))
    given_file.train([])
    for other in (loaded, given_file, pickle.loads(pickle.dumps(unigram))):
        assert [other.encode(line) for line in TEXT] == [unigram.encode(line) for line in TEXT]


def test_sentencepiece_can_normalise() -> None:
    tokenizer = learned(sentencepiece_config(normalization="nfkc"))
    assert tokenizer.decode(tokenizer.encode("Ｔhe  cat")) == "The cat"


def test_sentencepiece_says_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vocab_size=9000: .*<= \d+"):
        learned(sentencepiece_config(model_type="bpe", vocab_size=9000))
    with pytest.raises(DataError, match="vocab_size=5: .*smaller than required_chars"):
        learned(sentencepiece_config(vocab_size=5))
    assert len(learned(sentencepiece_config(vocab_size=9000)).encode(TEXT[0])) > 3  # unigram learns what there is
    with pytest.raises(DataError, match="no words to learn from"):
        SentencePiece(sentencepiece_config()).train(["", ""])
    with pytest.raises(ConfigError, match=r"tokenizer.model=.*nowhere.model: no such file"):
        SentencePiece(sentencepiece_config(model=str(tmp_path / "nowhere.model"))).train([])
    (tmp_path / "sentencepiece.model").write_bytes(b"no model")
    with pytest.raises(DataError, match="not a SentencePiece model"):
        SentencePiece(sentencepiece_config()).load(tmp_path)


def test_sentencepiece_settings_are_checked() -> None:
    cfg = SentencePieceConfig(None, "trigram", 0, 0.5, "nfd", False, -1, -1)
    assert len(list(cfg.check())) == 6


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    path = tmp_path / "codes"
    path.write_text("#version: 0.2\nt h\nth e</w>\nc a\nca t</w>\n")
    return path


def test_subword_bpe_applies_codes(codes: Path, tmp_path: Path) -> None:
    tokenizer = SubwordBPE(SubwordBPEConfig(str(codes), "@@"))
    tokenizer.train([])
    assert tokenizer.encode("the cath") == ["the", "ca@@", "t@@", "h"]
    assert tokenizer.decode(["the", "ca@@", "t@@", "h"]) == "the cath"
    assert (tokenizer.encode(""), tokenizer.decode([])) == ([], "")
    tokenizer.save(tmp_path)
    codes.unlink()
    loaded = SubwordBPE(SubwordBPEConfig(str(codes), "@@"))
    loaded.load(tmp_path)
    assert pickle.loads(pickle.dumps(loaded)).encode("the cath") == ["the", "ca@@", "t@@", "h"]


def test_subword_bpe_says_what_is_wrong_with_codes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.codes=.*: no such file"):
        SubwordBPE(SubwordBPEConfig(str(tmp_path / "codes"), "@@")).train([])
    (tmp_path / "codes").write_text("only\none word a line\n")
    with pytest.raises(DataError, match="not a file of subword-nmt codes"):
        SubwordBPE(SubwordBPEConfig(str(tmp_path / "codes"), "@@")).train([])
    assert len(list(SubwordBPEConfig(str(tmp_path / "nowhere"), "").check())) == 2


def test_pieces_that_start_words() -> None:
    word = Word(WordConfig())
    assert [word.begins_word(piece) for piece in word.encode("well, go")] == [True, False, True]
    with pytest.raises(ConfigError, match="the pieces of Byte do not say where words start"):
        Byte(ByteConfig()).begins_word("<0x41>")
