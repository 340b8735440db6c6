"""`python -m app.data.demo_corpus DIR`: a parallel corpus that may be shipped, because a program writes it.

Test and validation hold sentences with combinations of words (adjective with noun, verb with object) that training
never shows together, though it shows each of the words: what is scored is the use of rules, not memory.
"""

import argparse
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from app.data.demo_grammar import Grammar, Sentence

SIZES = {"train": 16_000, "valid": 300, "test": 500}
HELD_OUT = 10  # one combination in so many is kept out of training


def write_demo_corpus(directory: Path, seed: int = 1, sizes: dict[str, int] | None = None) -> None:
    """Write `SPLIT.en` and `SPLIT.de` for every split of `sizes`; no sentence stands twice, whatever the split."""
    directory.mkdir(parents=True, exist_ok=True)
    grammar, seen = Grammar(seed), set[str]()
    for split, size in (sizes or SIZES).items():
        wanted = is_seen if split == "train" else is_unseen
        sentences = [sentence for _, sentence in zip(range(size), draw(grammar, wanted, seen))]
        for lang, lines in (("en", [s.source for s in sentences]), ("de", [s.target for s in sentences])):
            (directory / f"{split}.{lang}").write_bytes("".join(f"{line}\n" for line in lines).encode())


def draw(grammar: Grammar, wanted: Callable[[Sentence], bool], seen: set[str]) -> Iterator[Sentence]:
    """New sentences without end."""
    while True:
        sentence = grammar.sentence()
        if wanted(sentence) and sentence.source not in seen:
            seen.add(sentence.source)
            yield sentence


def is_unseen(sentence: Sentence) -> bool:
    """Whether training never shows some two words of this sentence together."""
    return any(zlib.crc32(" ".join(words).encode()) % HELD_OUT == 0 for words in sentence.combinations)


def is_seen(sentence: Sentence) -> bool:
    return not is_unseen(sentence)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.data.demo_corpus", description="Write the demo corpus.")
    parser.add_argument("directory", type=Path, help="where SPLIT.en and SPLIT.de are written")
    parser.add_argument("--seed", type=int, default=1, help="other sentences of the same grammar")
    args = parser.parse_args()
    write_demo_corpus(args.directory, args.seed)
    print(f"{args.directory}: " + ", ".join(f"{size} {split}" for split, size in SIZES.items()) + " pairs, en and de")


if __name__ == "__main__":
    main()
