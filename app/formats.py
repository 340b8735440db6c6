"""How translations are written: plain lines, fairseq's lettered lines, or JSON."""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

from app.interfaces import Translation


class Record(NamedTuple):
    """A line and what became of it."""

    number: int  # of the line in its file, from 0
    source: str  # as it was read
    translations: list[Translation]  # best first
    reference: str | None = None
    seconds: float | None = None  # how long it took, where it was translated on its own

    @property
    def text(self) -> str:
        """The best translation, always one line."""
        return self.translations[0].text.replace("\n", " ") if self.translations else ""


def as_text(record: Record) -> str:
    """The best translation."""
    return f"{record.text}\n"


def as_fairseq(record: Record) -> str:
    """What `fairseq-generate` prints of a sentence, scores in base 2; and W-, as its interactive command, where timed.

    S- and H- hold pieces, T- and D- text; P- has the scores of the pieces and of eos, A- source-target pairs of pieces.
    Of a search that refines, where history was asked for, I- has the number of its last step, E- the text after each.
    """
    number = record.number
    source = " ".join(record.translations[0].source_pieces) if record.translations else ""
    lines = [f"S-{number}\t{source}"]
    if record.seconds is not None:
        lines.append(f"W-{number}\t{record.seconds:.3f}\tseconds")
    if record.reference is not None:
        lines.append(f"T-{number}\t{record.reference}")
    for translation in record.translations:
        score = translation.score / math.log(2)
        lines.append(f"H-{number}\t{score}\t{' '.join(translation.pieces)}")
        lines.append(f"D-{number}\t{score}\t{translation.text}")
        positional = " ".join(f"{each / math.log(2):.4f}" for each in translation.positional_scores)
        lines.append(f"P-{number}\t{positional}")
        if translation.alignment is not None:
            pairs = " ".join(f"{source}-{target}" for target, source in enumerate(translation.alignment))
            lines.append(f"A-{number}\t{pairs}")
        if translation.history is not None:
            lines.append(f"I-{number}\t{len(translation.history) - 1}")
            lines += [f"E-{number}_{step}\t{text}" for step, text in enumerate(translation.history)]
    return "".join(line.replace("\n", " ") + "\n" for line in lines)


def as_jsonl(record: Record) -> str:
    """One JSON object; scores are natural logarithms, unlike fairseq's."""
    values = {"id": record.number, "source": record.source, "reference": record.reference, "seconds": record.seconds}
    values = {name: value for name, value in values.items() if value is not None}
    hypotheses = [{k: v for k, v in t._asdict().items() if v is not None} for t in record.translations]
    return json.dumps({**values, "translations": hypotheses}, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Record], str]] = {"text": as_text, "fairseq": as_fairseq, "jsonl": as_jsonl}
