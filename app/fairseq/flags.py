"""Where fairseq's flags went: the tables that command lines, checkpoints and the page docs/from_fairseq.md are read by.

Flags that have no row here are those of a plug-in's own: they are the fields of the same name of the chosen task,
criterion, optimizer, schedule and model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.fairseq.values import fitted, numbers_of, one_number

given = partial(fitted, hint=str)
number = partial(fitted, hint=float)
whole = partial(fitted, hint=int)
numbers = partial(fitted, hint=list[float])


def at_least_0(value: Any) -> int:
    """fairseq's -1 is off; here 0 is."""
    found: int = fitted(value, int)
    return max(0, found)


def one_update_freq(value: Any) -> int:
    found: int = fitted(one_number(value), int)
    return found


def first_rate(value: Any) -> float:
    """The rate that schedules start from; `fixed` has the others too."""
    return numbers_of(value)[0]


def names_of(value: Any) -> list[str]:
    """`de-en,fr-en`, or a list."""
    return value.split(",") if isinstance(value, str) else list(value)


def first_split(value: Any) -> str:
    return str(value).split(",")[0]


@dataclass(frozen=True)
class Flag:
    """A flag of fairseq's and what takes its place."""

    names: str  # as options are called, separated by spaces: the long one first, then other spellings
    key: str = ""  # of our configuration; KEY=VALUE for a switch; empty: nothing takes its place
    note: str = ""  # what differs, or why there is nothing
    read: Callable[[Any], Any] = given
    words: str = "1"  # what follows it on a command line: 0 nothing, 1 a word, ? perhaps one, + several
    stops: bool = False  # without it, a checkpoint cannot be gone on with as before
    positional: bool = False  # given without a flag
    off: tuple[Any, ...] = ()  # values that ask for nothing, beside those of `values.is_off`

    @property
    def name(self) -> str:
        return self.names.split()[0]


CHOICES = (
    Flag("arch a", "model", "names of architectures are kept; `conf/model` has them all"),
    Flag("task", "task", "`translation_from_pretrained_bart` is `translation` with `task.langs`"),
    Flag("criterion", "criterion"),
    Flag("optimizer", "optimizer", "`optimizer=adam` is fairseq's, `optimizer=adamw` that of torch"),
    Flag("lr_scheduler", "lr_scheduler"),
)
TASK = (
    Flag("data", "task.data", "a data-bin directory is read in place; text is better", positional=True),
    Flag("source_lang s", "task.source_lang"),
    Flag("target_lang t", "task.target_lang"),
    Flag("bpe_codes", "tokenizer.codes"),
    Flag("sentencepiece_model", "tokenizer.model"),
    Flag("left_pad_source", "", "padding stands at the end and changes no result"),
    Flag("left_pad_target", "", "padding stands at the end and changes no result"),
    Flag("truncate_source", "", "longer pairs are left out and counted, never cut", words="0", stops=True),
    Flag("upsample_primary", "", "task.data takes directories with weights", stops=True, off=(1, "1")),
    Flag("shorten_method", "", "longer lines are left out and counted, never cut", stops=True),
    Flag("shorten_data_split_list", "", "see --shorten-method"),
    Flag("load_alignments", "task.load_alignments=true", words="0", stops=True),
    Flag("langs", "task.langs", read=names_of, stops=True),
    Flag("lang_pairs", "task.lang_pairs", read=names_of),
    Flag("num_batch_buckets", "", "shapes are bounded by batching.max_tokens"),
    Flag("dataset_impl", "", "mmap is read as it is; older kinds must be binarised again"),
    Flag("pad_to_fixed_length", "", "no row is padded to a fixed length", words="0"),
    Flag("pad_to_fixed_bsz", "", "no batch is padded to a fixed size", words="0"),
    Flag("output_dictionary_size", "", "the vocabulary is the dictionary", stops=True),
)
OPTIMIZATION = (
    Flag("max_epoch", "trainer.max_epoch", read=whole),
    Flag("max_update", "trainer.max_update", read=whole),
    Flag("stop_time_hours", "trainer.stop_time_hours", read=number),
    Flag("stop_min_lr", "", "schedules end with trainer.max_update"),
    Flag("patience", "trainer.patience", "0 is off", at_least_0),
    Flag("update_freq", "trainer.update_freq", "one number", one_update_freq),
    Flag("clip_norm", "trainer.clip_norm", "0 is off", number),
    Flag("sentence_avg", "criterion.sentence_avg=true", words="0"),
    Flag("lr learning_rate", "optimizer.lr", "a list per epoch is `lr_scheduler.lr` of `fixed`", first_rate),
    Flag("adam_betas", "optimizer.betas", read=numbers),
    Flag("adam_eps", "optimizer.eps", read=number),
    Flag("adamax_betas", "optimizer.betas", read=numbers),
    Flag("adamax_eps", "optimizer.eps", read=number),
    Flag("no_bias_correction", "optimizer.bias_correction=false", words="0"),
    Flag("adadelta_rho", "optimizer.rho", read=number),
    Flag("adadelta_eps", "optimizer.eps", read=number),
    Flag("adafactor_eps", "optimizer.eps", read=numbers),
    Flag("lamb_betas", "optimizer.betas", read=numbers),
    Flag("lamb_eps", "optimizer.eps", read=number),
    Flag("use_old_adam", "", "one Adam, with the numbers of both", words="0"),
    Flag("fp16_adam_stats", "", "the optimizer's state is fp32", words="0"),
    Flag("lr_deacy_period", "lr_scheduler.lr_decay_period", read=whole),
    Flag("lr_period_updates", "lr_scheduler.lr_period_updates", "0: to the end of the run", at_least_0),
    Flag("use_bmuf", "", "not here", words="0", stops=True),
    Flag("skip_remainder_batch", "", "the last, smaller update of an epoch is made", words="0"),
)
BATCHES = (
    Flag("max_tokens", "batching.max_tokens", "of the longer side, padding counted", whole),
    Flag("batch_size max_sentences", "batching.max_sentences", read=whole),
    Flag("max_tokens_valid", "batching.max_tokens_valid", read=whole),
    Flag("batch_size_valid max_sentences_valid", "", "batching.max_tokens_valid bounds batches of validation"),
    Flag("required_batch_size_multiple", "", "of `batching.order=fairseq`; else no sentence is left out for it"),
    Flag("required_seq_len_multiple", "", "not needed"),
    Flag("num_workers", "", "batches are made by a thread: batching.prefetch"),
    Flag("data_buffer_size", "", "batching.prefetch"),
    Flag("skip_invalid_size_inputs_valid_test", "", "always, and counted in the log", words="0"),
    Flag("curriculum", "", "every epoch is shuffled", stops=True),
    Flag("grouped_shuffling", "", "every epoch is shuffled anew", words="0"),
    Flag("train_subset", "trainer.train_split"),
    Flag("valid_subset", "trainer.valid_split", "the first of a list", first_split),
    Flag("combine_valid_subsets combine_val", "", "one split is validated on", words="0"),
    Flag("ignore_unused_valid_subsets", "", "always", words="0"),
    Flag("validate_interval", "trainer.validate_interval", read=whole),
    Flag("validate_interval_updates", "trainer.validate_interval_updates", read=whole),
    Flag("validate_after_updates", "", "validation is by its intervals"),
    Flag("max_valid_steps nval", "", "the whole split is validated on"),
    Flag("fixed_validation_seed", "", "validation draws nothing"),
    Flag("disable_validation", "trainer.validate_interval=0", words="0"),
    Flag("eval_bleu", "trainer.decode_valid=true", "detokenised sacreBLEU", words="0"),
    Flag("eval_bleu_args", "search", "its names are fields of `search`"),
    Flag("eval_bleu_detok", "", "the tokenizer makes text of pieces"),
    Flag("eval_bleu_detok_args", "", "the tokenizer makes text of pieces"),
    Flag("eval_bleu_remove_bpe", "", "done by the tokenizer: `tokenizer=subword_bpe tokenizer.codes=FILE`", words="?"),
    Flag("eval_bleu_print_samples", "", "samples are in the log of app.generate", words="0"),
    Flag("eval_tokenized_bleu", "", "sacreBLEU on text alone", words="0"),
)
PRECISION = (
    Flag("fp16", "precision=fp16", words="0"),
    Flag("bf16", "precision=bf16", words="0"),
    Flag("amp", "precision=fp16", words="0"),
    Flag("memory_efficient_fp16", "precision=fp16", "weights stay fp32", words="0"),
    Flag("memory_efficient_bf16", "precision=bf16", "weights stay fp32", words="0"),
    Flag("fp16_init_scale", "precision.init_scale", read=number),
    Flag("fp16_scale_window", "precision.growth_interval", read=whole),
    Flag("fp16_scale_tolerance", "", "an overflow halves the scale"),
    Flag("min_loss_scale", "", "ten updates in a row without a finite gradient end the run"),
    Flag("threshold_loss_scale", "", "see --min-loss-scale"),
    Flag("fp16_no_flatten_grads", "", "gradients are not flattened", words="0"),
    Flag("amp_init_scale amp_batch_retries amp_scale_window", "", "precision.init_scale, precision.growth_interval"),
    Flag("on_cpu_convert_precision", "", "not needed", words="0"),
    Flag("cpu", "trainer.device=cpu", words="0"),
    Flag("tpu", "", "CPU and CUDA", words="0"),
)
CHECKPOINTS = (
    Flag("save_dir", "run_dir"),
    Flag("restore_file", "checkpoint.finetune_from", "the same command resumes; import other checkpoints first"),
    Flag("finetune_from_model", "checkpoint.finetune_from", "import it first"),
    Flag("reset_optimizer", "checkpoint.reset_optimizer=true", words="0"),
    Flag("reset_lr_scheduler", "checkpoint.reset_lr_scheduler=true", words="0"),
    Flag("reset_meters", "checkpoint.reset_meters=true", words="0"),
    Flag("reset_dataloader", "checkpoint.reset_dataloader=true", words="0"),
    Flag("save_interval", "checkpoint.save_interval", read=whole),
    Flag("save_interval_updates", "checkpoint.save_interval_updates", read=whole),
    Flag("keep_last_epochs keep_interval_updates", "checkpoint.keep_last", read=whole),
    Flag("keep_best_checkpoints", "checkpoint.keep_best", read=whole),
    Flag("keep_interval_updates_pattern", "checkpoint.keep_interval_updates_pattern", read=whole),
    Flag("best_checkpoint_metric", "checkpoint.metric"),
    Flag("maximize_best_checkpoint_metric", "checkpoint.mode=max", words="0"),
    Flag("write_checkpoints_asynchronously save_async", "checkpoint.save_async=true", words="0"),
    Flag("no_save", "", "a run keeps its newest checkpoint", words="0"),
    Flag("no_epoch_checkpoints", "", "checkpoint.keep_last says how many are kept", words="0"),
    Flag("no_last_checkpoints", "", "a run keeps its newest checkpoint", words="0"),
    Flag("no_save_optimizer_state", "", "a checkpoint can always be gone on with", words="0"),
    Flag("optimizer_overrides", "", "give the optimizer's fields", stops=True),
    Flag("continue_once", "", "the same command resumes"),
    Flag("checkpoint_suffix checkpoint_shard_count", "", "a checkpoint is one directory"),
    Flag("load_checkpoint_on_all_dp_ranks", "", "not needed", words="0"),
)
WATCHING = (
    Flag("seed", "seed", read=whole),
    Flag("log_interval", "trainer.log_interval", read=whole),
    Flag("log_format", "", "a bar on terminals, lines elsewhere, metrics.jsonl always"),
    Flag("no_progress_bar", "", "a bar on terminals, lines elsewhere", words="0"),
    Flag("log_file", "", "train.log in the run directory"),
    Flag("tensorboard_logdir", "tracker", "tracker=tensorboard; it writes into the run directory"),
    Flag("wandb_project", "tracker", "tracker=wandb, tracker.wandb.project=NAME"),
    Flag("store_ema", "callbacks=ema", words="0"),
    Flag("ema_decay", "callbacks.ema.decay", read=number),
    Flag("ema_start_update", "callbacks.ema.start_update", read=whole),
    Flag("ema_fp32", "", "always", words="0"),
    Flag("ema_update_freq", "", "the average is updated with the weights", stops=True, off=(1,)),
    Flag("ema_seed_model", "", "the average starts from the weights", stops=True),
    Flag("user_dir", "", "`hydra.searchpath=[file://DIR/conf]`, see plugins.md"),
    Flag("empty_cache_freq all_gather_list_size model_parallel_size", "", "not needed"),
    Flag("quantization_config_path", "", "not here", stops=True),
    Flag("azureml_logging profile reset_logging suppress_crashes use_plasma_view", "", "not here", words="0"),
    Flag("aim_repo aim_run_hash plasma_path", "", "not here"),
)
DISTRIBUTED = (
    Flag("distributed_world_size nprocs_per_node distributed_num_procs", "", "as many processes as torchrun starts"),
    Flag("ddp_backend", "", "torch's own"),
    Flag("distributed_port distributed_init_method distributed_rank distributed_backend", "", "torchrun says them"),
    Flag("device_id local_rank bucket_cap_mb heartbeat_timeout ddp_comm_hook", "", "torchrun and torch have defaults"),
    Flag("find_unused_parameters distributed_no_spawn broadcast_buffers fast_stat_sync", "", "not needed", words="0"),
    Flag("fix_batches_to_gpus gradient_as_bucket_view zero_sharding", "", "not needed", words="?"),
    Flag("no_reshard_after_forward fp32_reduce_scatter cpu_offload use_sharded_state", "", "not here", words="0"),
    Flag("not_fsdp_flatten_parameters debug_param_names", "", "not here", words="0"),
    Flag("slowmo_momentum slowmo_base_algorithm localsgd_frequency", "", "not here"),
    Flag("pipeline_model_parallel", "", "not here", words="0", stops=True),
    Flag("pipeline_balance pipeline_devices pipeline_chunks pipeline_checkpoint", "", "not here"),
    Flag("pipeline_encoder_balance pipeline_encoder_devices", "", "not here"),
    Flag("pipeline_decoder_balance pipeline_decoder_devices", "", "not here"),
)
BPE = (
    Flag("tokenizer", "", "Moses' rules are not here; text is as it is"),
    Flag("bpe", "tokenizer", "`tokenizer=sentencepiece`, `tokenizer=subword_bpe`"),
    Flag("scoring", "scorer", "`scorer=bleu` is sacreBLEU; chrf, ter and wer are the others"),
)
TRAIN = (*CHOICES, *TASK, *OPTIMIZATION, *BATCHES, *PRECISION, *CHECKPOINTS, *WATCHING, *DISTRIBUTED, *BPE)

SEARCH = (
    Flag("path", "checkpoint", "a run directory; import a .pt first; A:B is an ensemble, a list here"),
    Flag("beam", "search.beam", read=whole),
    Flag("nbest", "search.nbest", read=whole),
    Flag("lenpen", "search.lenpen", read=number),
    Flag("unkpen", "search.unkpen", read=number),
    Flag("unnormalized", "search.unnormalized=true", words="0"),
    Flag("max_len_a", "search.max_len_a", read=number),
    Flag("max_len_b", "search.max_len_b", read=whole),
    Flag("min_len", "search.min_len", read=whole),
    Flag("match_source_len", "search.match_source_len=true", words="0"),
    Flag("no_repeat_ngram_size", "search.no_repeat_ngram_size", read=whole),
    Flag("temperature", "search.temperature", read=number),
    Flag("sampling", "search=sampling", words="0"),
    Flag("sampling_topk", "search.sampling_topk", "0 is off", at_least_0),
    Flag("sampling_topp", "search.sampling_topp", "0 is off", read=number),
    Flag("diverse_beam_groups", "search.diverse_beam_groups", "of `search=diverse_beam`", whole),
    Flag("diverse_beam_strength", "search.diverse_beam_strength", "of `search=diverse_beam`", number),
    Flag("diversity_rate", "search.diversity_rate", "of `search=diverse_siblings`", number),
    Flag("constraints", "search.constraints", "of `search=lexically_constrained`; phrases as text", words="?"),
    Flag("lm_path", "search.lm_path", "a run directory; import a .pt first"),
    Flag("lm_weight", "search.lm_weight", read=number),
    Flag("print_alignment", "search.print_alignment=true", words="?"),
    Flag("remove_bpe post_process", "", "translations are text; pieces are in output=fairseq", words="?"),
    Flag("replace_unk", "", "the tokenizer can leave nothing unknown", words="?"),
    Flag("prefix_size", "", "search.choices, or app.hub"),
    Flag("print_step", "", "not here", words="0"),
    Flag("score_reference", "", "`load(run).score(lines, translations)` of app.hub", words="0"),
    Flag("retain_dropout", "", "not here", words="0"),
    Flag("retain_dropout_modules", "", "not here", words="+"),
    Flag("no_early_stop no_beamable_mm no_seed_provided", "", "not needed", words="0"),
    Flag("iter_decode_max_iter", "search.iter_decode_max_iter", "of `search=iterative_refinement`", whole),
    Flag("iter_decode_eos_penalty", "search.iter_decode_eos_penalty", read=number),
    Flag("iter_decode_with_beam", "search.iter_decode_with_beam", read=whole),
    Flag("iter_decode_force_max_iter", "search.iter_decode_force_max_iter=true", words="0"),
    Flag("iter_decode_with_external_reranker", "search.iter_decode_with_external_reranker=true", words="0"),
    Flag("retain_iter_history", "search.retain_iter_history=true", words="0"),
    Flag("model_overrides", "", "give the values when the run is imported"),
    Flag("max_tokens", "max_tokens", read=whole),
    Flag("batch_size max_sentences", "", "max_tokens bounds batches"),
    Flag("quiet", "", "scores alone are printed with output_file=FILE", words="0"),
    Flag("cpu", "device=cpu", words="0"),
    Flag("fp16 bf16", "", "the precision of the run", words="0"),
    Flag("task arch a", "", "the run knows"),
    Flag("source_lang s", "", "the run knows"),
    Flag("target_lang t", "", "the run knows"),
    Flag("seed", "", "search.seed of search=sampling"),
    Flag("tokenizer bpe bpe_codes sentencepiece_model gpt2_encoder_json gpt2_vocab_bpe", "", "the run has one"),
    Flag("num_workers log_format log_interval user_dir required_batch_size_multiple dataset_impl", "", "not needed"),
    Flag("no_progress_bar skip_invalid_size_inputs_valid_test", "", "not needed", words="0"),
    Flag("checkpoint_suffix checkpoint_shard_count num_shards shard_id", "", "not here"),
)
GENERATE = (
    Flag("data", "data", positional=True),
    Flag("gen_subset", "split"),
    Flag("results_path", "output_file", "one file rather than a directory"),
    Flag("scoring", "scorer", "`scorer=bleu` is sacreBLEU"),
    Flag("sacrebleu", "", "always", words="0"),
    *SEARCH,
)
INTERACTIVE = (
    Flag("data", "", "the run has its vocabularies", positional=True),
    Flag("input", "input", "with it, `app.generate` takes the place of `app.interactive`"),
    Flag("buffer_size", "buffer_size", "of `app.generate`", whole),
    *SEARCH,
)
EVALUATE = (
    Flag("data", "data", positional=True),
    Flag("path", "checkpoint", "a run directory; import a .pt first"),
    Flag("gen_subset valid_subset", "split"),
    Flag("max_tokens", "max_tokens", read=whole),
    Flag("batch_size max_sentences", "", "max_tokens bounds batches"),
    Flag("context_window", "", "a setting of the run: task.context_window"),
    Flag("tokens_per_sample max_target_positions sample_break_mode", "", "settings of the run"),
    Flag("softmax_batch", "", "not needed"),
    Flag("output_word_probs output_word_stats quiet", "", "not here", words="0"),
    Flag("results_path", "", "output=json prints what a program reads"),
    Flag("model_overrides", "", "give the values when the run is imported"),
    Flag("add_bos_token self_target future_target past_target", "", "settings of the run", words="0"),
    Flag("task source_lang s", "", "the run knows"),
    Flag("target_lang t", "", "the run knows"),
    Flag("cpu", "device=cpu", words="0"),
    Flag("fp16 bf16 no_progress_bar skip_invalid_size_inputs_valid_test", "", "not needed", words="0"),
    Flag("num_workers log_format user_dir required_batch_size_multiple", "", "not needed"),
)
SCORE = (
    Flag("sys s", "sys"),
    Flag("ref r", "ref"),
    Flag("order o", "", "sacreBLEU's four"),
    Flag("ignore_case sacrebleu sentence_bleu", "", "sacreBLEU with its signature", words="0"),
)
PREPROCESS = (
    Flag("source_lang s", "task.source_lang"),
    Flag("target_lang t", "task.target_lang"),
    Flag("trainpref", "task.data", "a directory of `SPLIT.LANG` files; `task.train_split` is the prefix's name"),
    Flag("validpref testpref", "splits", "splits of the same directory"),
    Flag("destdir", "output", "with `format=fairseq`"),
    Flag("joined_dictionary", "task.joined_dictionary=true", words="0"),
    Flag("only_source", "task=language_modeling", words="0"),
    Flag("thresholdsrc thresholdtgt", "task.threshold", "one number", whole),
    Flag("nwordssrc nwordstgt", "task.nwords", "counts the four specials", at_least_0),
    Flag("workers", "task.num_workers", read=whole),
    Flag("srcdict tgtdict", "", "dictionaries are learnt; checkpoint.finetune_from keeps those of a run"),
    Flag("padding_factor", "", "always 8"),
    Flag("dataset_impl", "", "mmap"),
    Flag("dict_only", "", "not here", words="0"),
    Flag("alignfile align_suffix", "", "not here"),
    Flag("bpe tokenizer", "", "fairseq takes them and does nothing; here the tokenizer is part of the run"),
    Flag("task user_dir seed log_format", "", "not needed"),
)
COMMANDS = {  # fairseq's command -> ours, and its flags
    "fairseq-train": ("train", TRAIN),
    "fairseq-generate": ("generate", GENERATE),
    "fairseq-interactive": ("interactive", INTERACTIVE),
    "fairseq-eval-lm": ("evaluate", EVALUATE),
    "fairseq-validate": ("evaluate", EVALUATE),
    "fairseq-score": ("score", SCORE),
    "fairseq-preprocess": ("preprocess", PREPROCESS),
}
