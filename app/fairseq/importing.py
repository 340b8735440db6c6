"""A checkpoint of fairseq's becomes a run directory, which every command reads and training goes on from."""

import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.assembly import ASSETS, build, config_of
from app.check import KINDS, SEVERAL
from app.compose import compose_one, composing, plain_values
from app.config import TrainConfig
from app.data.corpus import binarised_pair
from app.data.iterator import EpochIterator
from app.data.vocabulary import Vocabulary
from app.errors import CheckpointError, ConfigError, DataError, StorageError
from app.fairseq.equivalents import Equivalent, chosen
from app.fairseq.names import as_here
from app.fairseq.optimizer_state import state_by_name
from app.fairseq.options import configuration_of
from app.fairseq.reading import FairseqCheckpoint, read
from app.interfaces import BatchIterator, Model, Task
from app.plugins import configure
from app.roots import ImportFairseqConfig
from app.run_config import save_config
from app.tasks.binarised import ready_tokenizer
from app.tasks.language_symbols import language_symbols
from app.tasks.text import Text
from app.tokenizers import Tokenizer
from app.trainer import Parts, Trainer

log = logging.getLogger("import_fairseq")

SAME_METRICS = ("loss", "nll_loss", "ppl")  # validation metrics that are the same numbers in both programs
WITH_MASK = {"masked_lm", "denoising"}  # tasks whose vocabulary has an entry for masks after the dictionary's


def import_checkpoint(cfg: ImportFairseqConfig, make_tokenizer: Callable[[], Tokenizer]) -> list[str]:
    """Write `cfg.output`, and return the overrides of `app.train` that go on with it.

    Raises CheckpointError for what cannot be read safely or has no equivalent, DataError for missing dictionaries.
    """
    checkpoint = read(Path(cfg.checkpoint))
    found, family = configuration_of(checkpoint, cfg.ignore)
    if found.left:
        log.info("left aside, for nothing depends on them here: %s", ", ".join(sorted(found.left)))
    texts = read_texts(checkpoint, found, Path(cfg.data), make_tokenizer)
    train = configured(found, cfg)
    plugins = {kind: plugins_of(getattr(train, kind), kind) for kind in KINDS}
    with directory_for(Path(cfg.output)) as run_dir:
        for name, text in texts.items():
            text.save(run_dir / ASSETS / name)
        task: Task = plugins["task"](plugins["tokenizer"], train.batching)
        task.load(run_dir / ASSETS)
        task.save(run_dir / ASSETS)
        check_sizes(plugins["model"], task, checkpoint, family)
        parts = build(train, plugins, task)
        if not cfg.use_ema:
            parts.callbacks = {}
        load_weights(parts.model, as_here(checkpoint.weights, family, parts.model.state_dict()), checkpoint.path)
        save_config(train, run_dir)
        trainer = trainer_at(train, run_dir, parts, checkpoint, family)
        restore_state(trainer, train, checkpoint, family, with_optimizer=not cfg.reset_optimizer)
        with trainer.saver:
            trainer.state.save(last=True)
    return found.words()


@contextmanager
def directory_for(output: Path) -> Iterator[Path]:
    """A directory that is called `output` once everything is in it. Raises StorageError."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
            run_dir = Path(temporary) / output.name
            yield run_dir
            run_dir.replace(output)
    except OSError as error:
        raise StorageError(f"{output}: {error.strerror or error}; make room or give another output") from None


def read_texts(
    checkpoint: FairseqCheckpoint, found: Equivalent, data: Path, make_tokenizer: Callable[[], Tokenizer]
) -> dict[str, Text]:
    """Tokenizer and vocabulary by their place in a run directory. Settles the languages in `found`."""
    tokenizer = ready_tokenizer(make_tokenizer, data)
    fields = chosen({"task": found.overrides["task"]})[1]["task"]
    if not {"source_lang", "lang"} & fields.keys():
        fault = f"task={found.overrides['task']}: its vocabularies are not found in a data-bin directory"
        raise CheckpointError(f"{checkpoint.path}: {fault}; only checkpoints of pairs and of one text are imported")
    if "source_lang" not in fields:
        vocabulary = dictionary(data, "dict.txt", ["<mask>"] if found.overrides["task"] in WITH_MASK else [])
        return {"text": Text(tokenizer, vocabulary)}
    guessed = binarised_pair(data) or sorted(path.name.split(".")[1] for path in data.glob("dict.?*.txt"))
    langs = [checkpoint.options["task"].get(f"{side}_lang") for side in ("source", "target")]
    if None in langs and len(guessed) != 2:
        raise DataError(f"{data}: says no pair of languages; it must have dict.SRC.txt and dict.TGT.txt alone")
    source_lang, target_lang = (lang or guess for lang, guess in zip(langs, guessed if None in langs else langs))
    for lang in (source_lang, target_lang):
        if not re.fullmatch(r"[\w@.-]+", str(lang)):
            raise CheckpointError(f"{checkpoint.path}: refused, {lang!r} is no name of a language")
    languages = found.overrides.get("task.langs")  # mBART's, whose entries stand behind those of the dictionary
    symbols = [] if languages is None else [*language_symbols(languages, "mbart"), "<mask>"]
    source, target = (dictionary(data, f"dict.{lang}.txt", symbols) for lang in (source_lang, target_lang))
    joined = source == target
    found.overrides |= {"task.source_lang": source_lang, "task.target_lang": target_lang}
    found.overrides["task.joined_dictionary"] = joined
    if joined:
        return {"joined": Text(tokenizer, source)}
    return {"source": Text(tokenizer, source), "target": Text(tokenizer, target)}


def dictionary(data: Path, name: str, symbols: list[str]) -> Vocabulary:
    if not (data / name).is_file():
        there = ", ".join(sorted(path.name for path in data.glob("dict*.txt"))) or "no dict.txt at all"
        raise DataError(f"{data / name}: no such dictionary; there is {there}; give the data-bin of this checkpoint")
    vocabulary = Vocabulary.load(data / name)
    missing = [symbol for symbol in symbols if symbol not in vocabulary.pieces]
    return Vocabulary([*vocabulary.pieces[4:], *missing], [*vocabulary.counts[4:], *(1 for _ in missing)])


def configured(found: Equivalent, cfg: ImportFairseqConfig) -> TrainConfig:
    """The configuration of the run. What only a start of training would find, such as missing splits, is not asked."""
    found.overrides |= {"task.data": str(Path(cfg.data).resolve()), "run_dir": str(Path(cfg.output).resolve())}
    found.overrides.setdefault("precision", "fp32")
    with composing():
        composed = compose_one("train", found.words())
    faults = list(composed.faults)
    if composed.node is None or faults:
        raise ConfigError(faults)
    values = plain_values(composed.node, faults)
    if faults:
        raise ConfigError(faults)
    values = {name: {} if name in SEVERAL and value in (None, "???") else value for name, value in values.items()}
    return config_of({**values, "tokenizer": cfg.tokenizer}, Path(cfg.output))


def plugins_of(node: Any, kind: str) -> Any:
    """The factory of a group, or its dict of factories. The task's files were looked at before."""
    if kind in SEVERAL:
        return {name: configure(child, KINDS[kind], f"{kind}.{name}") for name, child in node.items()}
    return configure(node, KINDS[kind], kind, check=kind != "task")


def check_sizes(make_model: Callable[[Task], Model], task: Task, checkpoint: FairseqCheckpoint, family: str) -> None:
    """The same check as `load_weights`, before memory is given to what the options say: on a model without numbers."""
    with torch.device("meta"):
        model = make_model(task)
    check_weights(model, as_here(checkpoint.weights, family, model.state_dict()), checkpoint.path)


def load_weights(model: Model, weights: dict[str, Tensor], path: Path) -> None:
    """Every weight finds its place, and every place its weight; else CheckpointError says what is left over."""
    check_weights(model, weights, path)
    model.load_state_dict({name: weights[name].float() for name in model.state_dict() if name in weights}, strict=False)


def check_weights(model: Model, weights: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    shared = {name for name, p in model.named_parameters(remove_duplicate=False)} - set(dict(model.named_parameters()))
    faults = [f"{name} is missing" for name in own if name not in weights and name not in shared]
    faults += [f"{name} has no place here" for name in weights if name not in own]
    faults += [
        f"{name} is {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if faults:
        more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
        mend = "is data= the data-bin of this checkpoint?"
        raise CheckpointError(f"{path}: weights of another model: {'; '.join(faults[:6])}{more}; {mend}")


def trainer_at(train: TrainConfig, run_dir: Path, parts: Parts, checkpoint: FairseqCheckpoint, family: str) -> Trainer:
    """A trainer that stands where fairseq's stood: update, epoch, best metric, time and averages."""
    nothing: Any = None  # nothing is logged
    trainer = Trainer(train.trainer, train.checkpoint, train.seed, run_dir, parts, nothing)
    extra = checkpoint.extra
    iterator = extra.get("train_iterator", {})
    trainer.num_updates = int(checkpoint.history.get("num_updates", 0))
    trainer.epoch = int(iterator.get("epoch", 1))
    trainer.wall_before = float(extra.get("previous_training_time", 0.0))
    if train.checkpoint.metric in SAME_METRICS and extra.get("best") is not None:
        trainer.judgement.best = float(extra["best"])
    if done := int(iterator.get("iterations_in_epoch", 0)):
        workers = checkpoint.options.get("distributed_training", checkpoint.options["model"])
        trainer.itr = within_epoch(
            train, parts.task, trainer.epoch, done * int(workers.get("distributed_world_size", 1))
        )
    for callback in parts.callbacks.values():
        if averaged := extra.get("ema"):
            callback.load_averaged(averages(parts.model, as_here(averaged, family, parts.model.state_dict())))
    return trainer


def within_epoch(train: TrainConfig, task: Task, epoch: int, num_batches: int) -> BatchIterator | None:
    """The epoch's iterator after so many of fairseq's batches; None where the training data is not there."""
    try:
        task.prepare(Path(train.cache_dir))
        itr = task.get_batch_iterator(task.dataset(train.trainer.train_split), epoch)
    except DataError as error:
        log.info("epoch %d was not at its end and starts again, for its data is not there: %s", epoch, error)
        return None
    assert isinstance(itr, EpochIterator)
    itr.num_samples = itr.samples_of_first(num_batches)
    return itr


def optimizer_of(train: TrainConfig) -> str:
    """fairseq's name of the optimizer, which is that of our option: the last part of its class's name."""
    return str(train.optimizer["_target_"]).rpartition(".")[2].lower()


def averages(model: Model, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of an average's weights, those that the model has under a name of their own."""
    return {name: weights[name].float() for name, _ in model.named_parameters() if name in weights}


def restore_state(
    trainer: Trainer, train: TrainConfig, checkpoint: FairseqCheckpoint, family: str, with_optimizer: bool
) -> None:
    """The optimizer's state, if it is there and wanted, and the schedule's, at `trainer.num_updates`."""
    theirs = {k: v for k, v in checkpoint.history.get("lr_scheduler_state", {}).items() if v is not None}
    theirs |= {"epoch": trainer.epoch, "num_updates": trainer.num_updates}
    if with_optimizer and checkpoint.optimizer is not None:
        restore_optimizer(trainer, state_by_name(checkpoint, optimizer_of(train), family, trainer.model))
        theirs["lr"] = checkpoint.optimizer["param_groups"][0]["lr"]
        scaler = trainer.optimizer.precision.scaler
        if scaler.is_enabled() and "loss_scale" in checkpoint.optimizer:
            scaler.load_state_dict({**scaler.state_dict(), "scale": float(checkpoint.optimizer["loss_scale"])})
    else:
        log.info("without the optimizer's state: going on starts it anew")
    own = trainer.lr_scheduler.state_dict()
    trainer.lr_scheduler.load_state_dict({key: theirs.get(key, value) for key, value in own.items()})
    trainer.lr_scheduler.step_update(trainer.num_updates)


def restore_optimizer(trainer: Trainer, states: Mapping[str, Any]) -> None:
    """States by name into the optimizer, which numbers its parameters."""
    inner = trainer.optimizer.inner
    named = [*trainer.model.named_parameters(), *trainer.criterion.named_parameters(prefix="criterion")]
    order = [name for name, p in named if p.requires_grad]
    state = {i: states[name] for i, name in enumerate(order) if name in states}
    inner.load_state_dict({"state": state, "param_groups": inner.state_dict()["param_groups"]})
