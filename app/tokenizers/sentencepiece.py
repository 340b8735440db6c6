"""Sub-word pieces learnt from raw text with SentencePiece (Kudo and Richardson, 2018)."""

import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from app.errors import ConfigError, DataError
from app.ranges import at_least, existing_file, one_of, positive
from app.tokenizers import Tokenizer

MODEL = "sentencepiece.model"  # file name in a run directory
SPACE = "▁"  # in front of a piece that starts a word
THREADS = 4  # sums over threads depend on their number, so it may not follow the machine's


@dataclass
class SentencePieceConfig:
    model: str | None  # a model file to use; null: learn one from the training text
    model_type: str  # unigram (Kudo, 2018) or bpe
    vocab_size: int  # pieces to learn; unigram learns fewer where the text has no more
    character_coverage: float  # share of the text's characters that get a piece; the others are unknown
    normalization: str  # SentencePiece's rule: identity keeps text as it is; nfkc, nmt_nfkc, nfkc_cf, nmt_nfkc_cf
    byte_fallback: bool  # spell characters without a piece in bytes, so that nothing is unknown
    max_lines: int  # learn from at most this many lines, drawn at random; 0: all
    seed: int  # of that draw

    def check(self) -> Iterator[str]:
        yield from positive(self, "vocab_size")
        yield from at_least(self, 0, "max_lines", "seed")
        yield from one_of(self, "model_type", "unigram", "bpe")
        yield from one_of(self, "normalization", "identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")
        yield from existing_file(self, "model")
        if not 0.9 <= self.character_coverage <= 1:
            yield f"character_coverage={self.character_coverage}: must lie between 0.9 and 1"


class SentencePiece(Tokenizer):
    """Unigram or BPE pieces. With `identity` normalisation `decode(encode(line)) == line` for text without U+2581."""

    def __init__(self, cfg: SentencePieceConfig):
        super().__init__(cfg)
        self._processor = sentencepiece.SentencePieceProcessor()

    def sources(self) -> list[Path]:
        if self.cfg.model is None:
            return []
        path = Path(self.cfg.model)
        if not path.is_file():
            raise ConfigError([f"tokenizer.model={path}: no such file; null learns a model from the training text"])
        return [path]

    def train(self, lines: Iterable[str]) -> None:
        """Learn the model, or read `model`. Deterministic. SentencePiece passes over lines of more than 4192 bytes."""
        if self.cfg.model is not None:
            self._read(*self.sources())
            return
        model = io.BytesIO()
        remaining = iter(lines)
        first = next((line for line in remaining if line), None)
        if first is None:
            raise DataError("tokenizer: the training text has no words to learn from; check the files of task.data")
        sentencepiece.set_random_generator_seed(self.cfg.seed)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=itertools.chain([first], remaining),
                model_writer=model,
                model_type=self.cfg.model_type,
                vocab_size=self.cfg.vocab_size,
                character_coverage=self.cfg.character_coverage,
                normalization_rule_name=self.cfg.normalization,
                remove_extra_whitespaces=self.cfg.normalization != "identity",
                byte_fallback=self.cfg.byte_fallback,
                input_sentence_size=self.cfg.max_lines,
                shuffle_input_sentence=self.cfg.max_lines > 0,
                hard_vocab_limit=self.cfg.model_type == "bpe",
                num_threads=THREADS,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            reason = str(error).rpartition("] ")[2].strip()
            raise DataError(f"tokenizer.vocab_size={self.cfg.vocab_size}: does not fit the text ({reason})") from None
        self._processor.LoadFromSerializedProto(model.getvalue())

    def encode(self, line: str) -> list[str]:
        pieces: list[str] = self._processor.encode(line, out_type=str)
        return pieces

    def decode(self, pieces: list[str]) -> str:
        return str(self._processor.decode(pieces))

    def begins_word(self, piece: str) -> bool:
        return piece.startswith(SPACE)

    def save(self, directory: Path) -> None:
        (directory / MODEL).write_bytes(self._processor.serialized_model_proto())

    def load(self, directory: Path) -> None:
        self._read(directory / MODEL)

    def _read(self, path: Path) -> None:
        try:
            self._processor.LoadFromSerializedProto(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); prepare the data again") from None
        except RuntimeError:
            raise DataError(f"{path}: not a SentencePiece model; give a file that SentencePiece wrote") from None
