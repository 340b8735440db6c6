"""HF transformers: Seq2SeqTrainer and a MarianMT model from scratch, in batches of sentences of about one length."""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import (
    DIM,
    DROPOUT,
    ENDLESS,
    FFN,
    HEADS,
    LAYERS,
    LR,
    SMOOTHING,
    TOKENS,
    WARMUP,
    Corpus,
    Peer,
    say,
)

SPECIAL = ["<pad>", "</s>", "<unk>"]


class HuggingFace(Peer):
    name = "huggingface"
    precisions = ("fp32", "bf16")
    installs = (("torch", "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0"),)

    def command(self, python: Path, corpus: Corpus, directory: Path, precision: str) -> list[str]:
        return [str(python), "-m", __name__, str(corpus.directory), str(directory / "run"), precision]


def examples(corpus: Corpus, numbers: dict[str, int]) -> list[dict[str, list[int]]]:
    """Pairs as the trainer wants them, eos at the end of both sides."""
    sides = [
        corpus.file("train", lang).read_text(encoding="utf-8").splitlines() for lang in (corpus.source, corpus.target)
    ]
    cut = [[[numbers[piece] for piece in line.split()] + [numbers["</s>"]] for line in side] for side in sides]
    pairs = zip(*cut, strict=True)
    return [{"input_ids": source, "attention_mask": [1] * len(source), "labels": target} for source, target in pairs]


def train(corpus: Corpus, directory: str, precision: str) -> None:
    """In the peer's environment: the trainer as its documentation has it, telling the tokens of each update."""
    import datasets
    import tokenizers
    import transformers

    numbers = {piece: number for number, piece in enumerate([*SPECIAL, *corpus.pieces])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    sizes = {"encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_ffn_dim": FFN, "decoder_ffn_dim": FFN}
    sizes |= {"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "d_model": DIM}
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1}
    rest: dict[str, Any] = {"dropout": DROPOUT, "activation_function": "relu", "scale_embedding": True}
    config = transformers.MarianConfig(vocab_size=len(numbers), max_position_embeddings=256, **sizes, **special, **rest)
    model = transformers.MarianMTModel(config)
    text = examples(corpus, numbers)
    sentences = round(TOKENS * len(text) / sum(len(pair["labels"]) for pair in text))
    settings = transformers.Seq2SeqTrainingArguments(
        output_dir=directory,
        use_cpu=True,
        bf16=precision == "bf16",
        per_device_train_batch_size=sentences,
        train_sampling_strategy="group_by_length",
        label_smoothing_factor=SMOOTHING,
        learning_rate=LR,
        warmup_steps=WARMUP,
        adam_beta2=0.98,
        max_steps=ENDLESS,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )

    class Telling(transformers.Seq2SeqTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            self.tokens = int(inputs["labels"].ne(-100).sum())
            return super().training_step(model, inputs, *rest)

    class AtUpdate(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            say(trainer.tokens)

    collator = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
    trainer = Telling(
        model=model, args=settings, train_dataset=datasets.Dataset.from_list(text), data_collator=collator
    )
    trainer.add_callback(AtUpdate())
    trainer.train()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("corpus", "directory", "precision"):
        parser.add_argument(name)
    args = parser.parse_args()
    train(Corpus(Path(args.corpus)), args.directory, args.precision)
