"""`python -m app.score sys=FILE ref=FILE`: BLEU, chrF, TER, WER of lines against references, with signatures."""

from typing import Any

from app.cli import command
from app.config import ScoreConfig
from app.errors import ConfigError, DataError
from app.lines import read_lines
from app.scorers import Score
from app.scorers.report import as_json, as_table


def run(cfg: ScoreConfig, plugins: dict[str, Any]) -> float:
    """Print the scores; return the first."""
    hypotheses, references = list(read_lines(cfg.sys)), list(read_lines(cfg.ref))
    if len(hypotheses) != len(references):
        raise DataError(
            f"{cfg.sys} has {len(hypotheses)} lines and {cfg.ref} has {len(references)}; "
            "give one output for every reference"
        )
    if not hypotheses:
        raise DataError(f"{cfg.sys}: is empty; there is nothing to score")
    if not plugins["scorer"]:
        raise ConfigError(["scorer: nothing is chosen; give scorer=[bleu,chrf]"])
    scores: list[Score] = [scorer().score(hypotheses, references) for scorer in plugins["scorer"].values()]
    print(as_json(scores) if cfg.output == "json" else as_table(scores))
    return scores[0].value


main = command("score", run)

if __name__ == "__main__":
    main()
