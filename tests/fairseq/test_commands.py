"""fairseq's documented commands are translated, and what comes out composes and passes the program's checks."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import check_composed, store_schema
from app.compose import CONF, compose_one, composing
from app.data.indexed import write_indexed
from app.errors import ConfigError
from app.fairseq.commands import Translated, as_markdown, translate
from tests.fairseq.imports import write_dictionary

IWSLT = r"""
CUDA_VISIBLE_DEVICES=0 fairseq-train data-bin \
    --arch transformer_iwslt_de_en --share-decoder-input-output-embed \
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 0.0 \
    --lr 5e-4 --lr-scheduler inverse_sqrt --warmup-updates 4000 \
    --dropout 0.3 --weight-decay 0.0001 \
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1 \
    --max-tokens 4096 --eval-bleu --eval-bleu-args '{"beam": 5, "max_len_a": 1.2, "max_len_b": 10}' \
    --eval-bleu-detok moses --eval-bleu-remove-bpe --eval-bleu-print-samples \
    --best-checkpoint-metric bleu --maximize-best-checkpoint-metric
"""
WMT = """
fairseq-train data-bin --arch transformer_vaswani_wmt_en_de_big --share-all-embeddings --optimizer adam
    --adam-betas '(0.9, 0.98)' --clip-norm 0.0 --lr-scheduler inverse_sqrt --warmup-updates 4000 --warmup-init-lr 1e-07
    --lr 0.0005 --stop-min-lr 1e-09 --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --weight-decay 0.0
    --max-tokens 3584 --update-freq 16 --fp16
"""
WIKITEXT = """
fairseq-train --task language_modeling one-text --save-dir checkpoints --arch transformer_lm_wiki103 --max-update 286000
    --lr 1.0 --t-mult 2 --lr-period-updates 270000 --lr-scheduler cosine --lr-shrink 0.75 --warmup-updates 16000
    --warmup-init-lr 1e-07 --stop-min-lr 1e-09 --optimizer nag --min-lr 0.0001 --clip-norm 0.1
    --criterion adaptive_loss --max-tokens 3072 --update-freq 3 --tokens-per-sample 3072 --seed 1
    --sample-break-mode none --skip-invalid-size-inputs-valid-test --ddp-backend=legacy_ddp
"""
ROBERTA = """
fairseq-train --fp16 one-text --task masked_lm --criterion masked_lm --arch roberta_base --sample-break-mode complete
    --tokens-per-sample 512 --optimizer adam --adam-betas '(0.9,0.98)' --adam-eps 1e-6 --clip-norm 0.0
    --lr-scheduler polynomial_decay --lr 0.0005 --warmup-updates 10000 --total-num-update 125000 --dropout 0.1
    --attention-dropout 0.1 --weight-decay 0.01 --batch-size 16 --update-freq 16 --max-update 125000
    --log-format simple --log-interval 1
"""
BART = """
fairseq-train data-bin --restore-file bart.large/model.pt --max-tokens 2048 --task translation --source-lang de
    --target-lang en --truncate-source --layernorm-embedding --share-all-embeddings
    --share-decoder-input-output-embed --reset-optimizer --reset-dataloader --reset-meters
    --required-batch-size-multiple 1 --arch bart_large --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --dropout 0.1 --attention-dropout 0.1 --weight-decay 0.01 --optimizer adam --adam-betas "(0.9, 0.999)"
    --adam-eps 1e-08 --clip-norm 0.1 --lr-scheduler polynomial_decay --lr 3e-05 --total-num-update 20000
    --warmup-updates 500 --fp16 --update-freq 4 --skip-invalid-size-inputs-valid-test --find-unused-parameters;
"""


@pytest.fixture
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and runs by the names that the commands use."""
    monkeypatch.chdir(tmp_path)
    store_schema("train")
    for name in ("dict.de.txt", "dict.en.txt"):
        write_dictionary(tmp_path / "data-bin" / name, ["a"])
    write_dictionary(tmp_path / "one-text" / "dict.txt", ["a"])
    files = [f"data-bin/{split}.de-en.{lang}" for split in ("train", "valid", "test") for lang in ("de", "en")]
    for file in [*files, "one-text/train", "one-text/valid"]:
        with write_indexed(tmp_path / f"{file}.idx", 8) as add:
            add(np.array([4, 2]), np.array([2]))
    (tmp_path / "bart.large" / "model").mkdir(parents=True)


def faults(translated: Translated) -> list[str]:
    """What our own program says of a line."""
    _, _, module, *words = shlex.split(translated.line)
    name = module.removeprefix("app.")
    store_schema(name)
    with composing():
        run = compose_one(name, words)
        return run.faults + check_composed(run.node, name)


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize(
    "line", [IWSLT, WMT, WIKITEXT, ROBERTA, BART], ids=["iwslt", "wmt", "wikitext", "roberta", "bart"]
)
def test_documented_commands_pass_the_checks(line: str) -> None:
    assert faults(translate(line)) == []


@pytest.mark.usefixtures("_there")
def test_flag_by_flag() -> None:
    found = translate(IWSLT)
    assert set(shlex.split(found.line)[3:]) == {
        *("model=transformer_iwslt_de_en", "task=translation", "criterion=label_smoothed_cross_entropy"),
        *("optimizer=adam", "lr_scheduler=inverse_sqrt", "precision=fp32", "tokenizer=pretokenized"),
        *("task.data=data-bin", "task.joined_dictionary=false", "model.share_decoder_input_output_embed=true"),
        *("optimizer.betas=[0.9,0.98]", "optimizer.lr=0.0005", "optimizer.weight_decay=0.0001"),
        *("lr_scheduler.warmup_updates=4000", "model.dropout=0.3", "criterion.label_smoothing=0.1"),
        *("trainer.clip_norm=0.0", "batching.max_tokens=4096", "batching.max_tokens_valid=4096"),
        *("trainer.decode_valid=true", "search.beam=5", "search.max_len_a=1.2", "search.max_len_b=10"),
        *("checkpoint.metric=bleu", "checkpoint.mode=max"),
    }
    assert [note.partition(":")[0] for note in found.notes()] == [
        "--eval-bleu-detok",
        "--eval-bleu-remove-bpe",
        "--eval-bleu-print-samples",
    ]


@pytest.mark.usefixtures("_there")
def test_what_is_not_given_is_as_in_fairseq() -> None:
    words = shlex.split(translate("fairseq-train data-bin --arch transformer --optimizer adam --max-epoch 3").line)
    theirs = {"criterion=cross_entropy", "lr_scheduler=fixed", "optimizer.lr=0.25", "optimizer.betas=[0.9,0.999]"}
    assert theirs | {"trainer.max_epoch=3", "trainer.max_update=0", "precision=fp32"} <= set(words)
    (start,) = translate(BART).first
    assert start.endswith("checkpoint=bart.large/model.pt data=data-bin output=bart.large/model")
    resets = [word for word in translate(BART).found.words() if "checkpoint.reset" in word]
    parts = {"optimizer": "true", "lr_scheduler": "false", "meters": "true", "dataloader": "true"}
    assert sorted(resets) == sorted(f"checkpoint.reset_{part}={value}" for part, value in parts.items())


HYDRA = """
fairseq-hydra-train task=language_modeling task.data=one-text task.tokens_per_sample=512 criterion=cross_entropy
    model=transformer_lm/transformer_lm_gpt model.decoder_layers=2 dataset.max_tokens=2048 optimizer=adam
    optimization.lr=[0.0005] optimization.update_freq=[16] optimizer.adam_betas="'(0.9,0.98)'" common.fp16=true
    lr_scheduler=inverse_sqrt lr_scheduler.warmup_updates=4000 +common.seed=3 checkpoint.reset_optimizer=false
    common.log_format=json distributed_training.distributed_world_size=1 hydra.run.dir=here
"""
HYDRA_FILE = """
defaults: [_self_, {task: translation}, {optimizer: adam}]
task: {data: data-bin, source_lang: de, target_lang: en}
model: {_name: transformer, encoder: {layers: 2}, dropout: 0.3, share_all_embeddings: true}
criterion: {_name: label_smoothed_cross_entropy, label_smoothing: 0.1}
lr_scheduler: {_name: inverse_sqrt, warmup_updates: 400}
optimization: {lr: [0.001], max_update: 100, clip_norm: 0.0}
dataset: {max_tokens: 1024}
common: {seed: 2, log_interval: "${dataset.max_tokens}"}
"""


@pytest.mark.usefixtures("_there")
def test_overrides_of_hydra_are_flags() -> None:
    found = translate(HYDRA)
    assert faults(found) == []
    theirs = {"task=language_modeling", "task.data=one-text", "task.tokens_per_sample=512", "criterion=cross_entropy"}
    theirs |= {"model=transformer_lm_gpt", "model.decoder_layers=2", "batching.max_tokens=2048", "optimizer=adam"}
    theirs |= {"optimizer.lr=0.0005", "trainer.update_freq=16", "optimizer.betas=[0.9,0.98]", "precision=fp16"}
    theirs |= {"lr_scheduler=inverse_sqrt", "lr_scheduler.warmup_updates=4000", "seed=3"}
    assert theirs <= set(shlex.split(found.line))
    assert {note.partition(":")[0] for note in found.notes()} >= {"--log-format"}
    assert "hydra.run.dir" not in found.line


@pytest.mark.usefixtures("_there")
def test_a_file_of_hydra_is_read_with_overrides_over_it(tmp_path: Path) -> None:
    (tmp_path / "wmt.yaml").write_text(HYDRA_FILE)
    found = translate(f"fairseq-hydra-train --config-dir {tmp_path} --config-name wmt optimization.max_update=7")
    assert faults(found) == []
    theirs = {"task=translation", "task.source_lang=de", "model=transformer", "model.encoder_layers=2"}
    theirs |= {"model.dropout=0.3", "criterion.label_smoothing=0.1", "trainer.max_update=7", "trainer.clip_norm=0.0"}
    theirs |= {"task.joined_dictionary=true", "optimizer=adam", "trainer.log_interval=1024", "seed=2"}
    assert theirs <= set(found.found.words())


OTHERS = {
    "fairseq-generate data-bin --path m/a.pt:m/b.pt --beam 4 --lenpen 0.6 --remove-bpe --gen-subset valid --cpu": (
        "python -m app.generate 'checkpoint=[m/a,m/b]' data=data-bin search.beam=4 search.lenpen=0.6 split=valid "
        "device=cpu"
    ),
    "fairseq-generate data-bin --path m.pt --sampling --sampling-topk 10 --nbest 2": (
        "python -m app.generate checkpoint=m search=sampling data=data-bin search.sampling_topk=10 search.nbest=2 "
        "search.sampling_topp=0.0 search.beam=5"
    ),
    "fairseq-generate data-bin --path m.pt --diverse-beam-groups 2": (
        "python -m app.generate checkpoint=m data=data-bin search=diverse_beam search.diverse_beam_groups=2"
    ),
    "fairseq-interactive data-bin --path m.pt --beam 1 -s de -t en": (
        "python -m app.interactive checkpoint=m output=fairseq search.beam=1"
    ),
    "fairseq-interactive data-bin --path m.pt --input in.txt --buffer-size 100": (
        "python -m app.generate checkpoint=m input=in.txt buffer_size=100 output=fairseq"
    ),
    "fairseq-generate data-bin --path m.pt --task translation_lev --iter-decode-max-iter 9 --beam 1 --print-step": (
        "python -m app.generate data=data-bin checkpoint=m search=iterative_refinement search.iter_decode_max_iter=9"
    ),
    "fairseq-eval-lm data-bin --path m.pt --max-tokens 512": (
        "python -m app.evaluate checkpoint=m data=data-bin max_tokens=512 split=test"
    ),
    "fairseq-validate data-bin --path m.pt --valid-subset valid1": (
        "python -m app.evaluate checkpoint=m data=data-bin split=valid1"
    ),
    "fairseq-score --sys a.out --ref a.ref": "python -m app.score sys=a.out ref=a.ref",
    "fairseq-preprocess -s de -t en --trainpref $T/train --validpref $T/valid --destdir bin --workers 4": (
        "python -m app.preprocess task.source_lang=de task.target_lang=en task.num_workers=4 output=bin "
        "format=fairseq tokenizer=pretokenized task.joined_dictionary=false task.data=$T 'splits=[train,valid]'"
    ),
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "--arch mbart_large --task translation_from_pretrained_bart --langs ar_AR,cs_CZ --prepend-bos",
            "task=translation task.langs=[ar_AR,cs_CZ] task.prepend_bos=true task.joined_dictionary=true",
        ),
        (
            "--arch multilingual_transformer --task multilingual_translation --lang-pairs de-en,fr-en",
            "task=multilingual_translation task.lang_pairs=[de-en,fr-en]",
        ),
        (
            "--arch transformer_align --load-alignments --alignment-layer 2",
            "task.load_alignments=true model.alignment_layer=2",
        ),
        (
            "--arch transformer --encoder-layerdrop 0.2 --decoder-layers-to-keep 0,2",
            "model.encoder_layerdrop=0.2 model.decoder_layers_to_keep=[0,2]",
        ),
        (
            "--arch cmlm_transformer --task translation_lev --eval-bleu --eval-bleu-args "
            """'{"iter_decode_max_iter": 9, "beam": 5}'""",
            "search=iterative_refinement search.iter_decode_max_iter=9 trainer.decode_valid=true",
        ),
    ],
)
def test_options_of_the_newer_plugins(given: str, expected: str) -> None:
    words = set(translate(f"fairseq-train data-bin {given}").found.words())
    assert set(expected.split()) <= words
    assert not {"search.beam=5", "search.max_len_b=200"} & words


@pytest.mark.parametrize("line", OTHERS)
def test_other_commands(line: str) -> None:
    assert set(shlex.split(translate(line).line)) == set(shlex.split(OTHERS[line]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fairseq-trian data-bin", "fairseq-trian: is no command of fairseq's; the nearest is fairseq-train"),
        ("fairseq-train d --arch transformer --max-tokns 5", "--max-tokns: is no flag .* nearest is max-tokens"),
        ("fairseq-train d --arch transfromer", "model=transfromer: is not here; the nearest is transformer"),
        ("fairseq-generate d --path m.pt --beam", "--beam: needs a value"),
        ("fairseq-generate d --path m.pt --beam four", "--beam 'four': could not convert"),
        ("fairseq-score a b", "a: fairseq-score takes no such argument"),
        ("fairseq-hydra-train task=translation", "says no task or model; give task=NAME model=NAME"),
        ("fairseq-hydra-train --config-name wmt", "wmt.yaml: No such file or directory; give the file with"),
        ("fairseq-hydra-train -m task=translation", "-m: is left to our own command"),
        ("fairseq-hydra-train task=translation model=transformer,lstm", "model=transformer,lstm: is a sweep"),
        ("fairseq-hydra-train task=translation model=lstm common.sed=1", "sed: is no option .* nearest is seed"),
        ("fairseq-hydra-train task=translation model=lstm common.seed", "fairseq-hydra-train: .*common.seed"),
        ("fairseq-hydra-train task=translation model=lstm common.seed=${x}", "not found; write the value itself"),
        ("fairseq-train 'data-bin", "cannot be read as a shell reads it"),
        ("fairseq-train d --arch transformer --update-freq 4,8", "a value for each epoch is not known here"),
    ],
)
def test_mistakes_are_told(line: str, message: str) -> None:
    store_schema("train")
    with pytest.raises(ConfigError, match=message):
        translate(line)


def run(*words: str) -> Any:
    return subprocess.run([sys.executable, "-m", "app.translate_command", *words], capture_output=True, text=True)


def test_the_command_prints_the_line_alone() -> None:
    ended = run("fairseq-generate", "data-bin", "--path", "m.pt", "--quiet")
    assert ended.stdout == "python -m app.generate data=data-bin checkpoint=m\n"
    assert "--quiet: " in ended.stderr
    assert run("fairseq-generate d --bean 5").returncode == 2
    assert run().returncode == 2


def test_the_documented_table_is_current() -> None:
    page = (CONF.parent / "docs" / "from_fairseq.md").read_text()
    _, _, rest = page.partition("<!-- written by: python -m app.translate_command --table -->\n\n")
    assert rest.partition("\n<!-- end -->")[0] == as_markdown()


def test_values_are_read_without_running_them() -> None:
    from app.fairseq.values import as_text, fitted

    assert fitted("[(512, 3)] * 2 + [(1024, 1)]", list[list[int]]) == [[512, 3], [512, 3], [1024, 1]]
    assert fitted("20000,60000", list[int]) == [20000, 60000]
    assert fitted("None", list[int] | None) is None
    for harmful in ("__import__('os').system('x')", "[1] * 10**9", "[1]*99999999", "(lambda: 1)()"):
        with pytest.raises(ValueError, match="no list or number"):
            fitted(harmful, list[int])
    assert as_text({"a": [1, None]}) == "{a:[1,null]}"
    assert json.loads(as_text([1, 2.5])) == [1, 2.5]
