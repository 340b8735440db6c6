"""A synchronous grammar of a little English and German: every rule makes a phrase in both languages at once.

It has what makes the two differ: three genders, adjective endings by article and case, the verb in second place of a
main clause and last in a subordinate one, separable verbs, and numbers whose units come before their tens.
"""

import random
from typing import NamedTuple

from app.data.demo_words import (
    ADJECTIVES,
    DAYS,
    GOODS,
    MEASURES,
    MODALS,
    MONTHS,
    PEOPLE,
    PLACES,
    QUALITIES,
    SAYING,
    THINGS,
    VERBS,
    Noun,
    Verb,
    number,
    ordinal,
)

CASES = ("nominative", "accusative", "dative")
ARTICLES = {  # German article, by gender (p: plural) in each of the cases
    "the": {"m": "der den dem", "f": "die die der", "n": "das das dem", "p": "die die den"},
    "this": {"m": "dieser diesen diesem", "f": "diese diese dieser", "n": "dieses dieses diesem"},
    "these": {"p": "diese diese diesen"},
    "every": {"m": "jeder jeden jedem", "f": "jede jede jeder", "n": "jedes jedes jedem"},
    "a": {"m": "ein einen einem", "f": "eine eine einer", "n": "ein ein einem"},
    "my": {"m": "mein meinen meinem", "f": "meine meine meiner", "n": "mein mein meinem", "p": "meine meine meinen"},
    "no": {"m": "kein keinen keinem", "f": "keine keine keiner", "n": "kein kein keinem", "p": "keine keine keinen"},
}
WEAK = {"m": "e en en", "f": "e e en", "n": "e e en", "p": "en en en"}  # adjectives after der, dieser, jeder
MIXED = {"m": "er en en", "f": "e e en", "n": "es es en", "p": "en en en"}  # after ein, mein, kein
STRONG = {"p": "e e en"}  # after a number


class Phrase(NamedTuple):
    """A noun phrase: English, and German by case."""

    en: str
    de: dict[str, str]
    plural: bool
    head: str  # English noun
    combinations: frozenset[tuple[str, str]]


class Clause(NamedTuple):
    """Parts that a main clause, a subordinate clause and a question put in their places."""

    subject: Phrase
    en_verb: str  # of a statement: buys, has bought, wants to buy
    en_question: tuple[str, str]  # around the subject: does ... buy
    en_tail: str
    de_finite: str
    de_tail: str
    de_end: str  # prefix, participle or infinitive
    joined: bool  # `de_end` is a prefix: one word with the verb where that is last
    time: tuple[str, str]  # may be empty
    combinations: frozenset[tuple[str, str]]


class Sentence(NamedTuple):
    """A pair, and which words stand in it as adjective with noun or verb with object."""

    source: str
    target: str
    combinations: frozenset[tuple[str, str]]


class Grammar:
    """Draws sentences; a seed gives the same ones everywhere."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def sentence(self) -> Sentence:
        kind = self.random.choices(("statement", "question", "that", "because", "if"), (6, 2, 2, 1, 1))[0]
        first = self.clause()
        if kind in ("statement", "question"):
            english, german = self.statement(first) if kind == "statement" else question(first)
            return finish(english, german, "?" if kind == "question" else ".", first.combinations)
        if kind == "that":
            (en_one, en_many), (de_one, de_many) = self.random.choice(list(SAYING.items()))
            who, (english, german) = self.phrase(PEOPLE), subordinate(first)
            english = f"{who.en} {en_many if who.plural else en_one} that {english}"
            german = f"{who.de['nominative']} {de_many if who.plural else de_one}, dass {german}"
            return finish(english, german, ".", first.combinations | who.combinations)
        second = self.clause(short=True)
        combinations = first.combinations | second.combinations
        sub_en, sub_de = subordinate(second)
        if kind == "because":
            english, german = self.statement(first)
            return finish(f"{english} because {sub_en}", f"{german}, weil {sub_de}", ".", combinations)
        english, _ = self.statement(first._replace(time=("", "")))
        _, german = question(first._replace(time=("", "")))  # the verb comes right after the clause that stands first
        return finish(f"if {sub_en}, {english}", f"wenn {sub_de}, {german}", ".", combinations)

    def statement(self, clause: Clause) -> tuple[str, str]:
        """The verb is the second part of the German main clause, whatever the first is."""
        (en_time, de_time), subject = clause.time, clause.subject
        if en_time and self.random.random() < 0.6:
            english = join(en_time, subject.en, clause.en_verb, clause.en_tail)
            return english, join(de_time, clause.de_finite, subject.de["nominative"], clause.de_tail, clause.de_end)
        english = join(subject.en, clause.en_verb, clause.en_tail, en_time)
        return english, join(subject.de["nominative"], clause.de_finite, de_time, clause.de_tail, clause.de_end)

    def clause(self, short: bool = False) -> Clause:
        subject, verb, thing = self.phrase(PEOPLE), self.random.choice(VERBS), self.object()
        en_tail, de_tail, combinations = thing.en, thing.de["accusative"], subject.combinations | thing.combinations
        if not short and self.random.random() < 0.25:
            place = self.random.random() < 0.5
            other = self.phrase(PLACES if place else PEOPLE)
            en_tail = join(en_tail, "in" if place else "with", other.en)
            de_tail = join(de_tail, "in" if place else "mit", other.de["dative"]).replace(" in dem ", " im ")
            combinations |= other.combinations
        time = self.time() if not short and self.random.random() < 0.4 else ("", "")
        en_verb, en_question, de_finite, de_end = self.verb_group(verb, subject.plural)
        joined = de_end == verb.prefix != ""
        combinations |= {(verb.en, thing.head)}
        return Clause(subject, en_verb, en_question, en_tail, de_finite, de_tail, de_end, joined, time, combinations)

    def verb_group(self, verb: Verb, plural: bool) -> tuple[str, tuple[str, str], str, str]:
        """English statement and question, German finite verb and what goes to the clause's end."""
        kind = self.random.choices(("present", "perfect", "modal"), (5, 2, 2))[0]
        do = "do" if plural else "does"
        if kind == "present":
            finite = verb.de_plural if plural else verb.de_third
            return verb.en if plural else verb.en_third, (do, verb.en), finite, verb.prefix
        if kind == "perfect":
            have, haben = ("have", "haben") if plural else ("has", "hat")
            return f"{have} {verb.en_participle}", (have, verb.en_participle), haben, verb.de_participle
        (one, many), (de_one, de_many) = self.random.choice(list(MODALS.items()))
        modal = many if plural else one
        asked = (do, f"{many} {verb.en}") if many.endswith(" to") else (modal, verb.en)
        return f"{modal} {verb.en}", asked, de_many if plural else de_one, verb.de

    def object(self) -> Phrase:
        if self.random.random() < 0.15:
            (en_good, de_good), (en, de) = (self.random.choice(list(d.items())) for d in (GOODS, MEASURES))
            en_count, de_count = number(self.random.randint(2, 20))
            german = f"{de_count} {de} {de_good}"
            return Phrase(f"{en_count} {en} of {en_good}", dict.fromkeys(CASES, german), True, en_good, frozenset())
        return self.phrase(THINGS)

    def phrase(self, pool: list[Noun]) -> Phrase:
        """Article or number, perhaps an adjective, noun."""
        noun = self.random.choice(pool)
        article = self.random.choices((*ARTICLES, "number"), (6, 2, 1, 1, 5, 2, 1, 3))[0]
        plural = article in ("number", "these") or ("p" in ARTICLES[article] and self.random.random() < 0.25)
        gender = "p" if plural else noun.gender
        en_article, de_articles = article, ARTICLES.get(article, {}).get(gender, "").split()
        endings = (WEAK if article in ("the", "this", "these", "every") else MIXED)[gender].split()
        if article == "number":
            en_article, de_number = number(self.random.choice((self.random.randint(2, 12), self.random.randint(2, 99))))
            de_articles, endings = [de_number] * 3, STRONG["p"].split()
        en_noun, de_noun = (noun.en_plural, noun.de_plural) if plural else (noun.en, noun.de)
        dative = de_noun + "n" if plural and de_noun[-1] not in "ns" else de_noun
        english, adjective, forms = en_noun, "", ["", "", ""]
        if self.random.random() < 0.5:
            adjective, stem = self.random.choice(list((QUALITIES if pool is PEOPLE else ADJECTIVES).items()))
            english, forms = f"{adjective} {en_noun}", [stem + ending for ending in endings]
        if article == "a" and english[0] in "aeiou":
            en_article = "an"
        german = (join(*words) for words in zip(de_articles, forms, (de_noun, de_noun, dative)))
        combinations = frozenset({(adjective, noun.en)} if adjective else ())
        return Phrase(f"{en_article} {english}", dict(zip(CASES, german)), plural, noun.en, combinations)

    def time(self) -> tuple[str, str]:
        """A day, a date or the time of day."""
        kind = self.random.choice(("day", "date", "clock", "day and clock"))
        day = self.random.choice(list(DAYS.items()))
        if kind == "date":
            month, (english, german) = self.random.choice(list(MONTHS.items())), ordinal(self.random.randint(1, 28))
            return f"on the {english} of {month[0]}", f"am {german} {month[1]}"
        days, clocks = (f"on {day[0]}", f"am {day[1]}"), self.clock()
        if kind == "day and clock":
            return f"{days[0]} {clocks[0]}", f"{days[1]} {clocks[1]}"
        return days if kind == "day" else clocks

    def clock(self) -> tuple[str, str]:
        """`at half past six` is `um halb sieben`."""
        hour = self.random.randint(1, 12)
        en, de = number(hour)
        kind = self.random.choice(("full", "half", "quarter", "minutes"))
        if kind == "full":
            return f"at {en} o'clock", f"um {'ein' if hour == 1 else de} Uhr"
        if kind == "half":
            return f"at half past {en}", f"um halb {number(hour % 12 + 1)[1]}"
        en_side, de_side = self.random.choice((("past", "nach"), ("to", "vor")))
        en_count, de_count = ("quarter", "Viertel") if kind == "quarter" else number(self.random.choice((5, 10, 20)))
        return f"at {en_count} {en_side} {en}", f"um {de_count} {de_side} {de}"


def subordinate(clause: Clause) -> tuple[str, str]:
    """The German verb is last, in one word with its prefix."""
    last = clause.de_end + clause.de_finite if clause.joined else join(clause.de_end, clause.de_finite)
    english = join(clause.subject.en, clause.en_verb, clause.en_tail, clause.time[0])
    return english, join(clause.subject.de["nominative"], clause.time[1], clause.de_tail, last)


def question(clause: Clause) -> tuple[str, str]:
    """The German verb is first."""
    do, verb = clause.en_question
    english = join(do, clause.subject.en, verb, clause.en_tail, clause.time[0])
    german = (clause.de_finite, clause.subject.de["nominative"], clause.time[1], clause.de_tail, clause.de_end)
    return english, join(*german)


def join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def finish(english: str, german: str, mark: str, combinations: frozenset[tuple[str, str]]) -> Sentence:
    """Capital letter and end mark."""
    source, target = (text[0].upper() + text[1:] + mark for text in (english, german))
    return Sentence(source, target, combinations)
