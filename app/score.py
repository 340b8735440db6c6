"""`python -m app.score sys=FILE ref=FILE`: BLEU, chrF, TER, WER of lines against references, with signatures."""

import json
from typing import Any

from app.cli import command
from app.errors import ConfigError, DataError
from app.lines import read_lines
from app.roots import ScoreConfig
from app.scorers import Score
from app.scorers.report import as_json, as_table


def run(cfg: ScoreConfig, plugins: dict[str, Any]) -> float:
    """Print the scores; return the first."""
    hypotheses, references = aligned(cfg.sys, cfg.ref)
    if not plugins["scorer"]:
        raise ConfigError(["scorer: nothing is chosen; give scorer=[bleu,chrf]"])
    scorers = {name: make() for name, make in plugins["scorer"].items()}
    scores: list[Score] = [scorer.score(hypotheses, references) for scorer in scorers.values()]
    if cfg.baseline is None:
        print(as_json(scores) if cfg.output == "json" else as_table(scores))
        return scores[0].value
    from app.scorers.significance import as_text, compare

    rows = compare((hypotheses, aligned(cfg.baseline, cfg.ref)[0]), references, scorers, cfg.bootstrap_samples)
    if cfg.output == "json":
        print(json.dumps([score._asdict() | row._asdict() for score, row in zip(scores, rows)], ensure_ascii=False))
    else:
        print(as_table(scores), as_text(rows), sep="\n")
    return scores[0].value


def aligned(name: str, reference: str) -> tuple[list[str], list[str]]:
    """The lines of both files, as many of the one as of the other."""
    hypotheses, references = list(read_lines(name)), list(read_lines(reference))
    if len(hypotheses) != len(references):
        raise DataError(
            f"{name} has {len(hypotheses)} lines and {reference} has {len(references)}; "
            "give one output for every reference"
        )
    if not hypotheses:
        raise DataError(f"{name}: is empty; there is nothing to score")
    return hypotheses, references


main = command("score", run)

if __name__ == "__main__":
    main()
