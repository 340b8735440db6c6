"""The embedded corpus: the same for the same seed, correct German, and a test set that memory cannot answer."""

from pathlib import Path

import pytest

from app.data.demo_corpus import is_unseen, write_demo_corpus
from app.data.demo_grammar import Clause, Grammar, Phrase, Sentence, question, subordinate
from app.data.demo_words import PEOPLE, number, ordinal

SIZES = {"train": 3000, "valid": 100, "test": 200}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo")
    write_demo_corpus(directory, seed=3, sizes=SIZES)
    return directory


def lines(directory: Path, name: str) -> list[str]:
    return (directory / name).read_text(encoding="utf-8").splitlines()


def test_same_seed_gives_the_same_files(corpus: Path, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "again", seed=3, sizes=SIZES)
    write_demo_corpus(tmp_path / "other", seed=4, sizes=SIZES)
    for path in corpus.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()


def test_files_are_parallel_and_every_source_has_one_translation(corpus: Path) -> None:
    sources = [line for split in SIZES for line in lines(corpus, f"{split}.en")]
    targets = [line for split in SIZES for line in lines(corpus, f"{split}.de")]
    assert len(sources) == len(targets) == sum(SIZES.values()) == len(set(sources))
    translations: dict[str, str] = {}
    grammar = Grammar(5)
    for _ in range(3000):
        sentence = grammar.sentence()
        assert translations.setdefault(sentence.source, sentence.target) == sentence.target


def test_held_out_sentences_have_unseen_combinations_of_known_words(corpus: Path) -> None:
    for lang in ("en", "de"):
        known = {word.lower() for line in lines(corpus, f"train.{lang}") for word in line.strip(".?").split()}
        unknown = [
            w for line in lines(corpus, f"test.{lang}") for w in line.strip(".?").split() if w.lower() not in known
        ]
        assert len(unknown) < 20  # rare numbers


def test_training_never_shows_a_held_out_combination(corpus: Path) -> None:
    grammar, by_source = Grammar(3), dict[str, Sentence]()
    for _ in range(8000):
        sentence = grammar.sentence()
        by_source.setdefault(sentence.source, sentence)
    shown = set().union(*(by_source[line].combinations for line in lines(corpus, "train.en")))
    for line in lines(corpus, "valid.en") + lines(corpus, "test.en"):
        assert is_unseen(by_source[line])
        assert by_source[line].combinations - shown


@pytest.mark.parametrize(
    ("value", "english", "german"),
    [
        (2, "two", "zwei"),
        (12, "twelve", "zwölf"),
        (16, "sixteen", "sechzehn"),
        (20, "twenty", "zwanzig"),
        (21, "twenty-one", "einundzwanzig"),
        (23, "twenty-three", "dreiundzwanzig"),
        (30, "thirty", "dreißig"),
        (77, "seventy-seven", "siebenundsiebzig"),
    ],
)
def test_numbers(value: int, english: str, german: str) -> None:
    assert number(value) == (english, german)


@pytest.mark.parametrize(
    ("value", "english", "german"),
    [
        (1, "first", "ersten"),
        (3, "third", "dritten"),
        (7, "seventh", "siebten"),
        (8, "eighth", "achten"),
        (12, "twelfth", "zwölften"),
        (19, "nineteenth", "neunzehnten"),
        (20, "twentieth", "zwanzigsten"),
        (21, "twenty-first", "einundzwanzigsten"),
    ],
)
def test_ordinals(value: int, english: str, german: str) -> None:
    assert ordinal(value) == (english, german)


@pytest.fixture
def clause() -> Clause:
    def phrase(en: str, nominative: str, accusative: str) -> Phrase:
        return Phrase(en, {"nominative": nominative, "accusative": accusative}, False, en, frozenset())

    subject, thing = phrase("the man", "der Mann", "den Mann"), phrase("the lamp", "die Lampe", "die Lampe")
    time = ("on Monday", "am Montag")
    tails = (thing.en, "hebt", thing.de["accusative"], "auf")
    return Clause(subject, "picks up", ("does", "pick up"), *tails, True, time, frozenset())


def test_verb_is_first_second_or_last(clause: Clause) -> None:
    assert question(clause) == ("does the man pick up the lamp on Monday", "hebt der Mann am Montag die Lampe auf")
    assert subordinate(clause)[1] == "der Mann am Montag die Lampe aufhebt"
    statements = {Grammar(seed).statement(clause) for seed in range(9)}
    assert statements == {
        ("on Monday the man picks up the lamp", "am Montag hebt der Mann die Lampe auf"),
        ("the man picks up the lamp on Monday", "der Mann hebt am Montag die Lampe auf"),
    }


PHRASES = {  # English: German nominative, accusative, dative, by a person who knows
    "the old man": ("der alte Mann", "den alten Mann", "dem alten Mann"),
    "an old man": ("ein alter Mann", "einen alten Mann", "einem alten Mann"),
    "no old men": ("keine alten Männer", "keine alten Männer", "keinen alten Männern"),
    "these old men": ("diese alten Männer", "diese alten Männer", "diesen alten Männern"),
    "three old men": ("drei alte Männer", "drei alte Männer", "drei alten Männern"),
    "every small woman": ("jede kleine Frau", "jede kleine Frau", "jeder kleinen Frau"),
    "a small woman": ("eine kleine Frau", "eine kleine Frau", "einer kleinen Frau"),
    "my big child": ("mein großes Kind", "mein großes Kind", "meinem großen Kind"),
    "this big child": ("dieses große Kind", "dieses große Kind", "diesem großen Kind"),
    "two women": ("zwei Frauen", "zwei Frauen", "zwei Frauen"),
}


def test_noun_phrases_are_declined() -> None:
    grammar = Grammar(1)
    drawn = {phrase.en: tuple(phrase.de.values()) for phrase in (grammar.phrase(PEOPLE[:3]) for _ in range(20_000))}
    assert {english: drawn[english] for english in PHRASES} == PHRASES


def test_clock_times() -> None:
    grammar = Grammar(1)
    drawn = dict(grammar.clock() for _ in range(3000))
    assert drawn["at half past six"] == "um halb sieben"
    assert drawn["at half past twelve"] == "um halb eins"
    assert drawn["at one o'clock"] == "um ein Uhr"
    assert drawn["at quarter to one"] == "um Viertel vor eins"
    assert drawn["at ten past three"] == "um zehn nach drei"
