"""The words of the demo corpus, English and German, with the forms that the grammar needs."""

from typing import NamedTuple


class Noun(NamedTuple):
    """English singular and plural, German gender (m, f, n), singular and plural."""

    en: str
    en_plural: str
    gender: str
    de: str
    de_plural: str


class Verb(NamedTuple):
    """English base form, third person, participle; German infinitive, third persons, participle, separable prefix."""

    en: str
    en_third: str
    en_participle: str
    de: str
    de_third: str
    de_plural: str
    de_participle: str
    prefix: str = ""


def pairs(table: str) -> dict[str, str]:
    """`old/alt young/jung`: English to German."""
    return dict(pair.split("/") for pair in table.split())


def numerals(table: str) -> list[str]:
    return table.split()


def nouns(table: str) -> list[Noun]:
    return [Noun(*line.split()) for line in table.strip().splitlines()]


PEOPLE = nouns("""
    man men m Mann Männer
    woman women f Frau Frauen
    child children n Kind Kinder
    teacher teachers m Lehrer Lehrer
    doctor doctors f Ärztin Ärztinnen
    girl girls n Mädchen Mädchen
    friend friends m Freund Freunde
    neighbour neighbours f Nachbarin Nachbarinnen
    singer singers m Sänger Sänger
    farmer farmers f Bäuerin Bäuerinnen
""")
THINGS = nouns("""
    dog dogs m Hund Hunde
    cat cats f Katze Katzen
    horse horses n Pferd Pferde
    bird birds m Vogel Vögel
    table tables m Tisch Tische
    lamp lamps f Lampe Lampen
    book books n Buch Bücher
    chair chairs m Stuhl Stühle
    bag bags f Tasche Taschen
    picture pictures n Bild Bilder
    coat coats m Mantel Mäntel
    bottle bottles f Flasche Flaschen
    knife knives n Messer Messer
    key keys m Schlüssel Schlüssel
    clock clocks f Uhr Uhren
    shirt shirts n Hemd Hemden
    apple apples m Apfel Äpfel
    pear pears f Birne Birnen
    egg eggs n Ei Eier
    umbrella umbrellas m Schirm Schirme
""")
PLACES = nouns("""
    garden gardens m Garten Gärten
    kitchen kitchens f Küche Küchen
    house houses n Haus Häuser
    park parks m Park Parks
    town towns f Stadt Städte
    village villages n Dorf Dörfer
""")
GOODS = {"apples": "Äpfel", "pears": "Birnen", "rice": "Reis", "cheese": "Käse", "flour": "Mehl", "salt": "Salz"}
MEASURES = {"kilos": "Kilo", "bags": "Taschen", "boxes": "Kisten", "cups": "Tassen"}
ADJECTIVES = pairs("""
    old/alt small/klein big/groß new/neu red/rot blue/blau green/grün white/weiß black/schwarz beautiful/schön
    heavy/schwer clean/sauber round/rund cheap/billig strange/seltsam ugly/hässlich
""")
QUALITIES = pairs("""
    old/alt young/jung small/klein big/groß funny/lustig strange/seltsam quiet/ruhig famous/berühmt
    friendly/freundlich happy/glücklich
""")  # of people
VERBS = [
    Verb("see", "sees", "seen", "sehen", "sieht", "sehen", "gesehen"),
    Verb("buy", "buys", "bought", "kaufen", "kauft", "kaufen", "gekauft"),
    Verb("find", "finds", "found", "finden", "findet", "finden", "gefunden"),
    Verb("paint", "paints", "painted", "malen", "malt", "malen", "gemalt"),
    Verb("carry", "carries", "carried", "tragen", "trägt", "tragen", "getragen"),
    Verb("need", "needs", "needed", "brauchen", "braucht", "brauchen", "gebraucht"),
    Verb("sell", "sells", "sold", "verkaufen", "verkauft", "verkaufen", "verkauft"),
    Verb("wash", "washes", "washed", "waschen", "wäscht", "waschen", "gewaschen"),
    Verb("look for", "looks for", "looked for", "suchen", "sucht", "suchen", "gesucht"),
    Verb("pick up", "picks up", "picked up", "aufheben", "hebt", "heben", "aufgehoben", "auf"),
    Verb("take along", "takes along", "taken along", "mitnehmen", "nimmt", "nehmen", "mitgenommen", "mit"),
    Verb("look at", "looks at", "looked at", "ansehen", "sieht", "sehen", "angesehen", "an"),
    Verb("put away", "puts away", "put away", "wegräumen", "räumt", "räumen", "weggeräumt", "weg"),
    Verb("bring back", "brings back", "brought back", "zurückbringen", "bringt", "bringen", "zurückgebracht", "zurück"),
]
SAYING = {  # English third person and plural: German
    ("says", "say"): ("sagt", "sagen"),
    ("thinks", "think"): ("denkt", "denken"),
    ("knows", "know"): ("weiß", "wissen"),
    ("hopes", "hope"): ("hofft", "hoffen"),
}
MODALS = {  # English third person and plural: German
    ("wants to", "want to"): ("will", "wollen"),
    ("must", "must"): ("muss", "müssen"),
    ("can", "can"): ("kann", "können"),
}
DAYS = pairs("""
    Monday/Montag Tuesday/Dienstag Wednesday/Mittwoch Thursday/Donnerstag Friday/Freitag Saturday/Samstag Sunday/Sonntag
""")
MONTHS = pairs("""
    January/Januar February/Februar March/März April/April May/Mai June/Juni July/Juli August/August
    September/September October/Oktober November/November December/Dezember
""")

EN_UNITS = numerals("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
""")
EN_TENS = numerals("- - twenty thirty forty fifty sixty seventy eighty ninety")
EN_ORDINALS = pairs("""
    one/first two/second three/third five/fifth eight/eighth nine/ninth twelve/twelfth twenty/twentieth thirty/thirtieth
""")
DE_UNITS = numerals("""
    null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn
    achtzehn neunzehn
""")
DE_TENS = numerals("- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
DE_ORDINALS = {1: "ersten", 3: "dritten", 7: "siebten", 8: "achten"}


def number(value: int) -> tuple[str, str]:
    """2 ... 99 in words: twenty-three, dreiundzwanzig."""
    if value < 20:
        return EN_UNITS[value], DE_UNITS[value]
    tens, units = divmod(value, 10)
    if not units:
        return EN_TENS[tens], DE_TENS[tens]
    return f"{EN_TENS[tens]}-{EN_UNITS[units]}", f"{'ein' if units == 1 else DE_UNITS[units]}und{DE_TENS[tens]}"


def ordinal(value: int) -> tuple[str, str]:
    """1 ... 31 as the day of a month: third, dritten."""
    english, german = number(value)
    head, dash, last = english.rpartition("-")
    english = head + dash + EN_ORDINALS.get(last, f"{last}th")
    return english, DE_ORDINALS.get(value, german + ("sten" if value >= 20 else "ten"))
