"""`python -m app.serve checkpoint=outputs/RUN`: translation over HTTP, as JSON and on a page."""

import logging
from functools import partial
from typing import Any

from app.cli import command
from app.config import ServeConfig
from app.errors import ConfigError

log = logging.getLogger("serve")


def run(cfg: ServeConfig, plugins: dict[str, Any]) -> None:
    """Serve until interrupted."""
    try:
        import uvicorn

        from app.serving.application import application
    except ModuleNotFoundError as error:
        raise ConfigError([f"app.serve: needs {error.name}; pip install 'seqwright[serve]'"]) from None
    from app.inference import load_generator, translated

    _, generator = load_generator(cfg, plugins)
    app = application(cfg, generator, partial(translated, generator, split=cfg.long_lines == "split"))
    log.info("http://%s:%d is the page; POST to /translate; Ctrl-C ends", cfg.host, cfg.port)
    uvicorn.run(
        app,
        host=cfg.host,
        port=cfg.port,
        limit_concurrency=cfg.max_connections,
        log_level="warning",
        server_header=False,
    )


main = command("serve", run)

if __name__ == "__main__":
    main()
