"""The text that all peers train on: cut into the same pieces beforehand."""

import gzip
import shutil
from collections import Counter
from pathlib import Path

import sentencepiece

from benchmarks.peers.peer import Corpus

PIECES = 8000


def read(data: Path, name: str) -> list[str]:
    """The lines of `name` or `name.gz`."""
    path = data / name
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        text = gzip.decompress(path.with_name(f"{name}.gz").read_bytes()).decode("utf-8")
    return text.removesuffix("\n").split("\n")


def prepare(data: Path, directory: Path, pieces: int = PIECES) -> Corpus:
    """Learn `pieces` SentencePieces of both languages' training text and cut all text, unless that was done before."""
    corpus = Corpus(directory)
    said = f"{data.resolve()} {pieces}\n"
    done = directory / "made_of.txt"
    if done.is_file() and done.read_text() == said:
        return corpus
    langs = (corpus.source, corpus.target)
    text = {(split, lang): read(data, f"{split}.{lang}") for split in ("train", "valid") for lang in langs}
    shutil.rmtree(directory, ignore_errors=True)  # with what peers prepared of other text
    directory.mkdir(parents=True)
    model = directory / "pieces"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text["train", langs[0]] + text["train", langs[1]]),
        model_prefix=str(model),
        vocab_size=pieces,
        character_coverage=1.0,
        minloglevel=2,
    )
    cutter = sentencepiece.SentencePieceProcessor(model_file=f"{model}.model")
    counts: Counter[str] = Counter()
    for (split, lang), lines in text.items():
        cut: list[list[str]] = cutter.encode(lines, out_type=str)
        if split == "train":
            counts.update(piece for line in cut for piece in line)
        corpus.file(split, lang).write_text("".join(" ".join(line) + "\n" for line in cut), encoding="utf-8")
    (directory / "pieces.txt").write_text("".join(f"{piece}\n" for piece, _ in counts.most_common()), encoding="utf-8")
    done.write_text(said)
    return corpus
