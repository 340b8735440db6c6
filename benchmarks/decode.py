"""`python -m benchmarks.decode checkpoint=outputs/RUN data=DIR`: how fast translation is, beside CTranslate2.

The test split is translated by beam 5 and greedy with the same weights in every engine, each in a process of its own,
so that its peak memory is its own. Batches hold `--max-tokens` source tokens of sentences of like length; a first pass
over 100 sentences warms up, and the best of `--rounds` passes counts. One JSON line a row goes to standard output and
to outputs/bench/decode.jsonl: sentences a second, and a second of the processor's time, which other load changes less;
output tokens (eos counted) a second, BLEU, and peak memory.
fairseq-generate has a row where `python -m benchmarks.peers DATA --only fairseq --install` has made its environment:
by its own clock, of searching alone, and without warming up. `lines as ours` is the share of equal translations.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import decode_fairseq
from benchmarks.peers.peer import PeerError

ENGINES = [("torch", "fp32"), ("torch", "bf16"), ("torch", "int8"), ("ctranslate2", "fp32"), ("ctranslate2", "int8")]
ENGINES += [("fairseq", "fp32")]
BEAMS = (5, 1)
Setup = tuple[Any, Any, list[str], Callable[[list[str]], float]]


def translator(checkpoint: str, data: str | None, engine: str, precision: str, beam: int, args: Any) -> Setup:
    """Task and generator as `app.generate` makes them, the lines, and what gives the BLEU of their translations."""
    from hydra import compose, initialize_config_dir

    from app.cli import configure_node, store_schema
    from app.compose import CONF
    from app.evaluation import score_lines
    from app.inference import load_generator

    store_schema("generate")
    given = [f"checkpoint={checkpoint}", f"engine={engine}", f"precision={precision}", f"search.beam={beam}"]
    given += ["search.max_len_a=1.5", "search.max_len_b=10", f"max_tokens={args.max_tokens}", "scorer=[bleu]"]
    given += [f"num_threads={args.threads}", *([] if data is None else [f"data={data}"])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg, plugins = configure_node(compose("generate", given), "generate")
    task, generator = load_generator(cfg, plugins, cfg.data)
    source, references = (side[: args.sentences] for side in task.references("test") or ())

    def bleu(translations: list[str]) -> float:
        (score,) = score_lines(translations, references, {"bleu": plugins["scorer"]["bleu"]()})
        return round(score.value, 2)

    return task, generator, source, bleu


def measured(checkpoint: str, data: str | None, engine: str, precision: str, beam: int, args: Any) -> dict[str, Any]:
    """One row, in this process."""
    if engine == "fairseq":
        return {"engine": engine, "precision": precision, "beam": beam, **of_fairseq(checkpoint, data, beam, args)}
    _, generator, source, bleu = translator(checkpoint, data, engine, precision, beam, args)
    generator.generate(source[:100])
    seconds, processor = [], []
    for _ in range(args.rounds):
        start = time.perf_counter(), time.process_time()
        found = generator.generate(source)
        seconds.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {
        "engine": engine,
        "precision": precision,
        "beam": beam,
        "sentences/s": round(len(source) / min(seconds), 1),
        "sentences/processor s": round(len(source) / min(processor), 1),
        "output tokens/s": round(sum(len(each[0].pieces) + 1 for each in found) / min(seconds)),
        "BLEU": bleu([each[0].text for each in found]),
        "peak MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def of_fairseq(checkpoint: str, data: str | None, beam: int, args: Any) -> dict[str, Any]:
    """The figures of fairseq-generate, or why there are none."""
    if not decode_fairseq.PYTHON.is_file():
        return {"error": decode_fairseq.MISSING}
    try:
        with tempfile.TemporaryDirectory() as directory:
            decode_fairseq.prepare(checkpoint, data, Path(directory))
            generated = decode_fairseq.generate(Path(directory), beam, args.max_tokens, args.threads, args.rounds)
    except PeerError as error:
        return {"error": str(error)}
    task, generator, source, bleu = translator(checkpoint, data, "torch", "fp32", beam, args)
    theirs = [task.target.tokenizer.decode(pieces) for pieces in generated.pieces[: len(source)]]
    same = sum(mine[0].text == other for mine, other in zip(generator.generate(source), theirs, strict=True))
    return {
        "sentences/s": round(generated.sentences, 1),
        "output tokens/s": round(generated.tokens),
        "BLEU": bleu(theirs),
        "peak MiB": generated.peak_mib,
        "lines as ours": round(same / len(theirs), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="checkpoint=RUN, and data=DIR where the run's data has moved")
    parser.add_argument("--rounds", type=int, default=3, help="timed passes of each row")
    parser.add_argument("--sentences", type=int, default=1000, help="sentences of the test split")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--max-tokens", type=int, default=2048, help="source tokens of a batch")
    parser.add_argument(
        "--row", nargs=3, metavar=("ENGINE", "PRECISION", "BEAM"), help="this row only, in this process"
    )
    args = parser.parse_args()
    given = dict(text.split("=", 1) for text in args.overrides)
    checkpoint = given.get("checkpoint", "outputs/multi30k")
    if not Path(checkpoint).is_dir():
        parser.error(f"checkpoint={checkpoint}: no such run; train one by app.train experiment=multi30k")
    if args.row:
        engine, precision, beam = args.row
        print(json.dumps(measured(checkpoint, given.get("data"), engine, precision, int(beam), args)))
        return
    path = Path("outputs/bench/decode.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for beam in BEAMS:
            for engine, precision in ENGINES:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.decode",
                    *sys.argv[1:],
                    "--row",
                    engine,
                    precision,
                    str(beam),
                ]
                row = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
                file.write(row + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
