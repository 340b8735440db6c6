"""fairseq's data-bin directories as a corpus: dictionaries that are there, and rows that are encoded already."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.data.cache import cached, identity, key
from app.data.indexed import SUFFIX, IndexedStore
from app.data.vocabulary import Vocabulary
from app.errors import DataError
from app.tokenizers import Tokenizer

if TYPE_CHECKING:
    from app.tasks.text import Text

ROWS = 25_000  # rows that are copied together


def binarised(paths: Sequence[Path]) -> bool:
    """Whether these files hold ids. Raises DataError where some do and some do not."""
    found = {path.suffix == SUFFIX for path in paths}
    if len(found) > 1:
        names = ", ".join(map(str, paths))
        raise DataError(f"{names}: text and binarised data cannot be one corpus; binarise the text with app.preprocess")
    return found == {True}


def dictionary(path: Path) -> Path:
    """The `dict.LANG.txt` of `SPLIT.SRC-TGT.LANG.idx`; the `dict.txt` of `SPLIT.idx`."""
    lang = path.name.removesuffix(SUFFIX).rpartition(".")[2]
    there = [path.with_name(name) for name in (f"dict.{lang}.txt", "dict.txt")]
    found = next((each for each in there if each.is_file()), None)
    if found is None:
        raise DataError(f"{there[0]}: is missing beside {path.name}; copy the dictionary there")
    return found


def read_vocabulary(paths: Sequence[Path], symbols: Sequence[str]) -> Vocabulary:
    """The one vocabulary of these files, and `symbols` that its dictionary does not have."""
    dictionaries = sorted({dictionary(path) for path in paths})
    first, *others = [Vocabulary.load(path) for path in dictionaries]
    for path, other in zip(dictionaries[1:], others):
        if other != first:
            mend = "set task.joined_dictionary=false, or take data of one dictionary"
            raise DataError(f"{path}: is another dictionary than {dictionaries[0]}; {mend}")
    missing = [symbol for symbol in symbols if symbol not in first.pieces]
    return Vocabulary([*first.pieces[4:], *missing], [*first.counts[4:], *(1 for _ in missing)])


def ready_tokenizer(make_tokenizer: Callable[[], Tokenizer], path: Path) -> Tokenizer:
    """A tokenizer that needs no text to learn from: pieces become text with it, and text that is typed, pieces."""
    tokenizer = make_tokenizer()
    try:
        tokenizer.train(iter(()))
    except DataError:
        mend = "set tokenizer=pretokenized, or tokenizer.model to the model that it was made with"
        raise DataError(f"{path}: holds ids, and no text to learn a tokenizer from; {mend}") from None
    return tokenizer


def stores_in_place(
    files: Sequence[tuple[Path, ...]], texts: Sequence["Text"], cache_dir: Path
) -> tuple[IndexedStore, ...] | None:
    """The stores of a split that one directory has, read where they are; None where rows must be put together.

    All their ids are looked at once; `cache_dir` remembers that it was done.
    """
    if len(files) != 1 or not binarised(files[0]):
        return None
    paths = [each for path in files[0] for each in (path, path.with_suffix(".bin")) if each.is_file()]
    name = key(files=[identity(path) for path in paths], sizes=[len(text.vocabulary) for text in texts])

    def check(_directory: Path) -> None:
        open_together(files[0], texts)

    cached(cache_dir / f"checked-{name}", check)
    return open_together(files[0], texts, checks=False)


def open_together(paths: Sequence[Path], texts: Sequence["Text"], checks: bool = True) -> tuple[IndexedStore, ...]:
    """Stores whose rows belong together. Raises DataError where their dictionary or number is not the run's."""
    for path, text in zip(paths, texts, strict=True):
        own = Vocabulary.load(dictionary(path)).pieces
        if own != text.vocabulary.pieces[: len(own)]:
            raise DataError(f"{dictionary(path)}: is not this run's dictionary; binarise again with that of its task/")
    limits = [len(text.vocabulary) if checks else None for text in texts]
    stores = tuple(IndexedStore(path, limit) for path, limit in zip(paths, limits, strict=True))
    if len({len(store) for store in stores}) > 1:
        counts = " and ".join(f"{store.path} has {len(store)}" for store in stores)
        raise DataError(f"{counts} sentences; they must be translations of each other, one by one")
    return stores


def encoded_rows(
    paths: Sequence[Path], texts: Sequence["Text"]
) -> Iterator[list[tuple[NDArray[np.int32], NDArray[np.int64]]]]:
    """The rows of files that belong together, in chunks: ids and lengths of each file, as text is encoded."""
    stores = [store.unmapped() for store in open_together(paths, texts)]
    for start in range(0, len(stores[0]), ROWS):
        chunk = []
        for store in stores:
            lengths = store.lengths_between(start, min(start + ROWS, len(store)))
            first, _ = store.bounds(np.array([start]))
            chunk.append((store.pieces(first, lengths.sum(keepdims=True)).astype(np.int32), lengths))
        yield chunk


def decoded_lines(path: Path, text: "Text") -> Iterator[str]:
    """The text of every row, as its tokenizer joins the pieces."""
    (store,) = open_together([path], [text])
    for row in range(len(store)):
        yield text.tokenizer.decode(text.vocabulary.decode(store[row].tolist()))
