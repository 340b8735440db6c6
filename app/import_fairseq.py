"""`python -m app.import_fairseq checkpoint=model.pt data=data-bin output=outputs/RUN`: a run from fairseq."""

from typing import Any

from app.cli import command, store_schema
from app.roots import ImportFairseqConfig


def run(cfg: ImportFairseqConfig, plugins: dict[str, Any]) -> None:
    """Write the run directory, and print the command that goes on with its training."""
    import shlex

    from hydra.core.hydra_config import HydraConfig

    from app.fairseq.importing import import_checkpoint

    store_schema("train")
    words = import_checkpoint(cfg, plugins["tokenizer"])
    given = HydraConfig.get()
    words.append(f"tokenizer={given.runtime.choices['tokenizer']}")
    words += [word for word in given.overrides.task if word.startswith("tokenizer.")]
    print(shlex.join(["python", "-m", "app.train", *words]))


main = command("import_fairseq", run)

if __name__ == "__main__":
    main()
