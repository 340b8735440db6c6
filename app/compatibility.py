"""Rules that no section can know alone: whether sections and classes fit each other, and this machine."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.config import AUTO


def between_sections(sections: Mapping[str, Any], plugins: Mapping[str, Any]) -> Iterator[str]:
    """Rules that no section can know alone. A section that has faults of its own is None, and its rules wait."""
    task, model, trainer = (sections.get(name) for name in ("task", "model", "trainer"))
    if trainer is not None and task is not None and hasattr(task, "check_split"):
        for name in ["train_split", "valid_split"] if validating(trainer) else ["train_split"]:
            yield from (f"trainer.{name}: {fault}" for fault in task.check_split(getattr(trainer, name)))
    if getattr(model, "share_all_embeddings", False) and not getattr(task, "joined_dictionary", True):
        yield "model.share_all_embeddings=true: needs one vocabulary; set task.joined_dictionary=true"
    if sections.get("batching") is not None:
        yield from batching_faults(sections["batching"], task, trainer, sections.get("distributed"))
    if sections.get("checkpoint") is not None and trainer is not None and "scorer" in plugins:
        yield from metric_faults(sections["checkpoint"], trainer, sections, plugins)
    yield from draft_faults({kind: class_of(plugins.get(kind)) for kind in DRAFTING}, sections.get("search"))
    task_class, model_class, criterion = (class_of(plugins.get(kind)) for kind in ("task", "model", "criterion"))
    parts = sections["criterion"].classes() if hasattr(sections.get("criterion"), "classes") else [criterion]
    for each in parts:
        yield from kind_faults(task_class, model_class, each)
        yield from softmax_faults(model, each)
    yield from head_faults(task, sections.get("criterion"))
    yield from pair_faults(task, task_class, model_class)
    yield from sharing_faults(task, model)
    if trainer is not None:
        yield from device_faults(trainer.device)
    if getattr(sections.get("distributed"), "strategy", "") == "fsdp":
        for name in ("encoder_layerdrop", "decoder_layerdrop"):
            if getattr(model, name, 0):
                yield f"model.{name}={getattr(model, name)}: distributed=fsdp runs every layer everywhere; choose ddp"
    if plugins.get("optimizer") is not None:
        if getattr(sections.get("precision"), "dtype", "") == "int8":
            yield "precision=int8: is for finished models; train in bf16 or fp32"
        yield from optimizer_faults(plugins["optimizer"])
        yield from scheduler_faults(sections.get("optimizer"), plugins.get("lr_scheduler"))


def batching_faults(batching: Any, task: Any, trainer: Any, distributed: Any) -> Iterator[str]:
    """A batch must have room for the longest sentence that the task takes."""
    for side in ("source", "target"):
        longest = getattr(task, f"max_{side}_positions", 0)
        if batching.max_tokens != AUTO and batching.max_tokens < longest:
            limit = f"task.max_{side}_positions={longest}"
            yield f"batching.max_tokens={batching.max_tokens}: smaller than {limit}; raise the one or lower the other"
    if task is not None and validating(trainer):
        longest = max(getattr(task, f"max_{side}_positions", 0) for side in ("source", "target"))
        if 0 < batching.max_tokens_valid < longest:
            limit = f"the longest sentence that task.max_..._positions={longest} allows"
            yield f"batching.max_tokens_valid={batching.max_tokens_valid}: smaller than {limit}; raise it"
    if getattr(distributed, "strategy", "") == "fsdp" and batching.max_tokens == AUTO:
        yield "batching.max_tokens=auto: distributed=fsdp cannot try what only one process refuses; give a number"


FITTING = {  # what a task's batches ask for -> a criterion for that
    "tokens": "cross_entropy",
    "masked tokens": "masked_lm",
    "classes": "sentence_prediction",
    "candidates": "sentence_ranking",
}


def kind_faults(task: Any, model: Any, criterion: Any) -> Iterator[str]:
    """Whether the classes fit each other; None stands for one that could not be configured."""
    needs = getattr(criterion, "needs", None)
    if needs is not None and model is not None and not hasattr(model, needs):
        yield f"criterion: asks its model for `{needs}`, which {model.__name__} does not have; choose another"
    if task is None:
        return
    if model is not None and model.has_pairs and not task.has_pairs:
        yield f"model: {model.__name__} is for several pairs of languages; choose task=multilingual_translation"
    if criterion is not None and criterion.predicts != task.predicts:
        asked = f"task {task.__name__} asks for {task.predicts}"
        mend = f"choose criterion={FITTING.get(task.predicts, '...')}"
        yield f"criterion: {criterion.__name__} is for {criterion.predicts}, and {asked}; {mend}"
    if model is not None and model.generates != task.generates and (task.generates or needs is None):
        name, asked = model.__name__, f"task {task.__name__} wants a model with"
        if task.generates:
            yield f"model: {asked} a decoder, which {name} does not have; choose another, such as model=transformer"
        else:
            yield f"model: {asked} no decoder, which {name} has; choose another, such as model=roberta"


def softmax_faults(model: Any, criterion: Any) -> Iterator[str]:
    """A criterion of adaptive softmaxes needs one. Of a model without the field only the run can tell."""
    needs = getattr(criterion, "needs_adaptive_softmax", False)
    if needs and hasattr(model, "adaptive_softmax_cutoff") and model.adaptive_softmax_cutoff is None:
        mend = "model.adaptive_softmax_cutoff, such as [2000,6000], or choose criterion=cross_entropy"
        yield f"criterion: {criterion.__name__} is for models with an adaptive softmax; set {mend}"


def head_faults(task: Any, criterion: Any) -> Iterator[str]:
    """What belongs to a classification head is said by the criterion, and taken by the task."""
    for name in ("classification_head_name", "ranking_head_name", "regression_target"):
        own, others = getattr(task, name, None), getattr(criterion, name, None)
        if None not in (own, others) and own != others:
            yield f"task.{name}={own}: is not criterion.{name}={others}; set that one alone"


def sharing_faults(task: Any, model: Any) -> Iterator[str]:
    """Languages on one side of several pairs that share embeddings share a vocabulary."""
    if getattr(task, "joined_dictionary", True) or not hasattr(model, "shared_by") or model.share_all_embeddings:
        return
    for place, side in enumerate(("encoder", "decoder")):
        langs = sorted({pair.split("-")[place] for pair in getattr(task, "lang_pairs", ())})
        if len(langs) > 1 and model.shared_by(side) is not None:
            field = next(name for name in (f"share_{side}s", f"share_{side}_embeddings") if getattr(model, name))
            yield f"model.{field}=true: {', '.join(langs)} need one vocabulary; set task.joined_dictionary=true"


def pair_faults(cfg: Any, task: Any, model: Any) -> Iterator[str]:
    """One model for several pairs of languages knows all their words, and is told which language to write."""
    if cfg is None or model is None or not getattr(task, "has_pairs", False) or model.has_pairs:
        return
    mend = f"which {model.__name__} needs; or choose model=multilingual_transformer"
    if not cfg.joined_dictionary:
        yield f"task.joined_dictionary=false: set true for one vocabulary, {mend}"
    targets = {pair.rpartition("-")[2] for pair in cfg.lang_pairs}
    if len(targets) > 1 and cfg.encoder_langtok != "tgt" and not cfg.decoder_langtok:
        yield f"task.encoder_langtok={cfg.encoder_langtok}: set tgt, or decoder_langtok=true, to say the target, {mend}"


DRAFTING = {  # what there is for models that refine drafts (`app.interfaces.RefiningModel`)
    "model": "cmlm_transformer",
    "task": "translation_lev",
    "criterion": "nat_loss",
    "search": "iterative_refinement",
}


def draft_faults(classes: Mapping[str, Any], search: Any) -> Iterator[str]:
    """Model, task, criterion and search deal with drafts, all of them or none."""
    model = classes["model"]
    if model is None:
        return
    for kind, made in classes.items():
        if made is None or made.refines == model.refines:
            continue
        if model.refines:
            mend = f"choose {kind}={DRAFTING[kind]}"
            yield f"{kind}: {made.__name__} knows no drafts, which {model.__name__} refines; {mend}"
        else:
            mend = f"choose another {kind}, or a model such as {DRAFTING['model']}"
            yield f"{kind}: {made.__name__} is for models that refine drafts, as {model.__name__} does not; {mend}"
    if model.refines and not model.predicts_length and getattr(search, "iter_decode_with_beam", 1) > 1:
        yield f"search.iter_decode_with_beam: {model.__name__} predicts no lengths to choose from; set it to 1"


def validating(trainer: Any) -> bool:
    """Whether a run validates at all."""
    return trainer is not None and bool(trainer.validate_interval or trainer.validate_interval_updates)


def metric_faults(
    checkpoint: Any, trainer: Any, sections: Mapping[str, Any], plugins: Mapping[str, Any]
) -> Iterator[str]:
    """The metric that says which checkpoint is best must be one that the run has, and be read the right way round."""
    better = dict.fromkeys(("loss", "nll_loss", "ppl"), "min")
    if getattr(sections.get("criterion"), "report_accuracy", False):
        better["accuracy"] = "max"
    better |= getattr(sections.get("criterion"), "reported", {})
    if trainer.decode_valid and getattr(class_of(plugins.get("task")), "has_references", True):
        scorers = {name: class_of(made) for name, made in plugins["scorer"].items()}
        better |= {name: "max" if getattr(made, "higher_is_better", True) else "min" for name, made in scorers.items()}
    if checkpoint.metric not in better:
        yield f"checkpoint.metric={checkpoint.metric}: this run will have {', '.join(better)}; see scorer=..."
    elif checkpoint.mode in ("min", "max") and checkpoint.mode != better[checkpoint.metric]:
        mode = better[checkpoint.metric]
        fault = f"the best {checkpoint.metric} is the {mode}; set checkpoint.mode={mode}"
        yield f"checkpoint.mode={checkpoint.mode}: {fault}"


def class_of(factory: Any) -> Any:
    """The class that a configured factory makes, None where it could not be configured."""
    return getattr(factory, "func", None)


def device_faults(device: str, key: str = "trainer.device") -> Iterator[str]:
    import torch

    if device == "auto":
        return
    try:
        kind = torch.device(device).type
    except RuntimeError:
        yield f"{key}={device}: must be auto, cpu, cuda or cuda:N"
        return
    if kind == "cuda" and not torch.cuda.is_available():
        yield f"{key}={device}: no CUDA device is visible here; set {key}=cpu or auto"


def optimizer_faults(optimizer: Any) -> Iterator[str]:
    """Optimizers without a schema refuse bad values when they are made, so one is made for a single number."""
    import torch

    if optimizer.args:
        return
    try:
        optimizer([("weight", torch.zeros(1, 1, requires_grad=True))])
    except (ValueError, TypeError, RuntimeError) as error:
        yield f"optimizer: {error}"


def scheduler_faults(optimizer: Any, scheduler: Any) -> Iterator[str]:
    """An optimizer of several parts has a scheduler for each; one for all would overwrite their rates."""
    over_groups = getattr(getattr(scheduler, "func", None), "over_groups", False)
    if scheduler is None or hasattr(optimizer, "groups") == over_groups:
        return
    if over_groups:
        yield "lr_scheduler=pass_through: this optimizer has one part and no scheduler of its own; choose another"
    else:
        yield "optimizer.groups: each has a scheduler of its own; choose lr_scheduler=pass_through"
