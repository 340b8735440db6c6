"""`python -m app.export checkpoint=outputs/RUN format=ctranslate2 output=DIR`: a trained model for other programs."""

import logging
import shutil
from pathlib import Path
from typing import Any

from app.cli import command, store_schema
from app.errors import StorageError
from app.roots import ExportConfig

log = logging.getLogger("export")


def run(cfg: ExportConfig, plugins: dict[str, Any]) -> None:
    """Write the model; what is left of a failed attempt is removed."""
    from app.assembly import restore
    from app.exporters import to_ctranslate2, to_graph, to_safetensors
    from app.fairseq import exporting as to_fairseq

    formats = {
        "ctranslate2": to_ctranslate2.export,
        "safetensors": to_safetensors.export,
        "fairseq": to_fairseq.export,
        "onnx": to_graph.export_onnx,
        "torch_export": to_graph.export_torch,
    }
    store_schema("train")  # what fairseq is given is read again as `app.import_fairseq` reads it
    output = Path(cfg.output)
    restored = restore(Path(cfg.checkpoint))
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            formats[cfg.format](restored, temporary)
            temporary.rename(output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{output}: {error.strerror or error}; free space there or give another output") from None
    files = ", ".join(sorted(path.name for path in output.iterdir()))
    log.info("wrote %s: %s", output, files)


main = command("export", run)

if __name__ == "__main__":
    main()
