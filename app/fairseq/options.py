"""The options in a checkpoint of fairseq's as a configuration of ours."""

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from app.errors import CheckpointError, ConfigError
from app.fairseq.equivalents import Equivalent, chosen, equivalent
from app.fairseq.flags import TRAIN
from app.fairseq.reading import FairseqCheckpoint
from app.fairseq.values import fitted, is_off, python

SECTIONS = ("task", "criterion", "optimizer", "lr_scheduler", "optimization", "dataset", "checkpoint", "common", "ema")
CHOICES = ("task", "criterion", "optimizer", "lr_scheduler")
ELSEWHERE = {  # what the import itself says, or a run does not depend on
    *("_name", "arch", "model", "data", "save_dir", "restore_file", "finetune_from_model", "bpe", "tokenizer"),
    *("tensorboard_logdir", "wandb_project", "scoring", "eval_bleu_args", "bpe_codes", "sentencepiece_model"),
    *("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader", "simul_type", "no_seed_provided"),
    *("pad", "eos", "unk", "bos", "gen_subset", "num_shards", "shard_id"),
}
PAD = 1  # rows of fconv's tables of positions that no token gets, less one

Options = Mapping[str, Any]
Weights = Mapping[str, Tensor]
Value = Callable[[Options, Weights], Any]


def has(weights: Weights, part: str) -> bool:
    return any(part in name for name in weights)


def cutoff(options: Options, weights: Weights) -> Any:
    """Some models leave the cutoff aside unless the criterion is adaptive: their weights say so."""
    return options.get("adaptive_softmax_cutoff") if has(weights, "adaptive_softmax") else None


def scale(name: str, parameter: str) -> Value:
    """fairseq takes NormFormer's options and ignores some: its weights say which."""
    return lambda options, weights: bool(options.get(name)) and has(weights, f".{parameter}")


def longest_row(options: Options, weights: Weights) -> Any:
    return options.get("max_target_positions") or options.get("tokens_per_sample")


def shared(options: Options, weights: Weights) -> bool:
    return bool(options.get("share_decoder_input_output_embed") or options.get("share_all_embeddings"))


def activation_dropout(options: Options, weights: Weights) -> Any:
    return options.get("activation_dropout") or options.get("relu_dropout") or 0.0


def no_final_norm(options: Options, weights: Weights) -> bool:
    """Also of checkpoints from before there was one."""
    ends = "decoder.layer_norm.weight" in weights
    return bool(options.get("no_decoder_final_norm")) or (bool(options.get("decoder_normalize_before")) and not ends)


def less_padding(name: str) -> Value:
    return lambda options, weights: None if options.get(name) is None else int(options[name]) - PAD - 1


def layers_left(side: str) -> Value:
    """fairseq takes layers out of what it loads by `SIDE_layers_to_keep`, and saves what is left, numbered anew."""

    def value(options: Options, weights: Weights) -> Any:
        if not options.get(f"{side}_layers_to_keep"):
            return options[f"{side}_layers"]
        return len({match[0] for name in weights if (match := re.match(rf"{side}\.layers\.\d+\.", name))})

    return value


def layers_that_attend(name: str) -> Value:
    """fairseq has one word for all layers, or a list of them; null is all layers here, and [] none."""

    def value(options: Options, weights: Weights) -> Any:
        found = python(options.get(name))
        return None if found is True else found or []

    return value


EVERYWHERE: dict[str, Value] = {"adaptive_softmax_cutoff": cutoff, "activation_dropout": activation_dropout}
NORMFORMER = {"scale_fc": "ffn_layernorm", "scale_attn": "attn_ln", "scale_heads": "c_attn", "scale_resids": "w_resid"}
WITHOUT_PADDING = {name: less_padding(name) for name in ("max_source_positions", "max_target_positions")}
ROW: dict[str, Value] = {"max_target_positions": longest_row}
PRE_NORM: dict[str, Value] = {"no_decoder_final_norm": no_final_norm}
PRUNED: dict[str, Value] = {f"{side}_layers": layers_left(side) for side in ("encoder", "decoder")}
PRUNED |= {f"{side}_layers_to_keep": lambda options, weights: None for side in ("encoder", "decoder")}
OF_FAMILY: dict[str, dict[str, Value]] = {  # family -> field of ours -> its value, where that is not the option's
    "transformer": PRE_NORM | PRUNED,
    "transformer_align": PRUNED,
    "bart": PRUNED,
    "transformer_lm": ROW
    | PRE_NORM
    | PRUNED
    | {name: scale(name, parameter) for name, parameter in NORMFORMER.items()},
    "lstm": {"share_decoder_input_output_embed": shared},
    "lightconv": {"share_decoder_input_output_embed": shared},
    "lstm_lm": ROW,
    "lightconv_lm": ROW,
    "fconv_lm": ROW,
    "fconv": WITHOUT_PADDING | {"decoder_attention": layers_that_attend("decoder_attention")},
    "fconv_self_att": {
        **WITHOUT_PADDING,
        **{name: layers_that_attend(name) for name in ("encoder_attention", "decoder_attention", "self_attention")},
        "mask_padding": lambda options, weights: False,
    },
}


def family_of(node: DictConfig) -> str:
    """The model family that a configuration's class belongs to: the name of its module."""
    return str(node["_target_"]).split(".")[-2]


def configuration_of(checkpoint: FairseqCheckpoint, ignore: list[str]) -> tuple[Equivalent, str]:
    """The overrides of `app.train` that make this model and go on with its training, and the model's family.

    Raises CheckpointError that names every option without an equivalent, unless `ignore` names it.
    """
    options: dict[str, Any] = {}
    for section in SECTIONS:
        options = {**checkpoint.options.get(section, {}), **options}
    choices = {name: checkpoint.options[name]["_name"] for name in CHOICES if checkpoint.options.get(name)}
    arch = checkpoint.architecture
    found = equivalent({"arch": arch, **choices}, TRAIN, {})
    family = family_of(chosen(found.overrides)[0].model)
    found.overrides["model"] = family
    _, fields = chosen(found.overrides)
    model = checkpoint.options["model"]
    given = {name: value for name, value in {**options, **model}.items() if name not in ELSEWHERE}
    own = model_values(model, checkpoint.weights, family, fields["model"], checkpoint.path.name)
    plugins = {group: each for group, each in fields.items() if group != "model"}
    rest = {name: value for name, value in given.items() if name in options or name not in fields["model"]}
    others = equivalent(rest, [flag for flag in TRAIN if flag.name not in (*CHOICES, "arch")], plugins)
    found.overrides |= others.overrides | {f"model.{name}": value for name, value in own.items()}
    found.overrides.setdefault("trainer.decode_valid", False)
    found.overrides["batching.order"] = "fairseq"
    found.overrides["batching.required_batch_size_multiple"] = options.get("required_batch_size_multiple") or 8
    found.left = {name: why for name, why in others.left.items() if name not in fields["model"]}
    stopping = (others.stopping | others.unknown) - fields["model"].keys() - {*CHOICES, *ignore}
    if stopping:
        told = "; ".join(
            f"{name}={reprlib.repr(given[name])} ({others.left.get(name, 'not known')})" for name in sorted(stopping)
        )
        mend = f"if the model does not depend on them: ignore=[{','.join(sorted(stopping))}]"
        raise CheckpointError(f"{checkpoint.path}: options without an equivalent here: {told}; {mend}")
    return found, family


def model_values(model: Options, weights: Weights, family: str, fields: Mapping[str, Any], where: str) -> Options:
    """A value for each field that fairseq has an option for; others keep those of the family's YAML file.

    That is what fairseq does with a checkpoint from before an option was there.
    """
    values: dict[str, Any] = {}
    rules = EVERYWHERE | OF_FAMILY.get(family, {})
    for name, hint in fields.items():
        try:
            value = rules[name](model, weights) if name in rules else model[name]
            if value is not None or name in rules or name in model:
                values[name] = fitted(value, hint)
        except KeyError:  # an option that fairseq has not, or had not yet
            continue
        except (ValueError, TypeError) as error:
            if is_off(model.get(name)):
                continue
            raise ConfigError([f"{where}: {name}={reprlib.repr(model.get(name))}: {error}"]) from None
    return values
