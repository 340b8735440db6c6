"""`python -m app.serve checkpoint=outputs/RUN`: translation over HTTP, as JSON and on a page."""

import logging
from dataclasses import replace
from functools import partial
from typing import Any

from app.cli import command
from app.errors import ConfigError
from app.roots import ServeConfig

log = logging.getLogger("serve")


def run(cfg: ServeConfig, plugins: dict[str, Any]) -> None:
    """Serve until interrupted."""
    try:
        import uvicorn

        from app.serving.application import application
        from app.serving.protocol import punctual
    except ModuleNotFoundError as error:
        raise ConfigError([f"app.serve: needs {error.name}; pip install 'seqwright[serve]'"]) from None
    from app.inference import load_generator, translated

    make_search = with_details(plugins["search"], cfg.engine) if cfg.details else plugins["search"]
    _, generator = load_generator(cfg, {**plugins, "search": make_search})
    translate = partial(translated, generator, split=cfg.long_lines == "split")
    app = application(cfg, generator, translate, most_translations(make_search))
    log.info("http://%s:%d is the page; POST to /translate; Ctrl-C ends", cfg.host, cfg.port)
    uvicorn.run(
        app,
        host=cfg.host,
        port=cfg.port,
        http=punctual(cfg.timeout),
        limit_concurrency=cfg.max_connections,
        log_level="warning",
        server_header=False,
    )


def with_details(make_search: "partial[Any]", engine: str) -> "partial[Any]":
    """The search that also finds the n best, n its beam, and their attention, as far as it has options for that."""
    (options,) = make_search.args
    wanted = {"nbest": getattr(options, "beam", 1), "print_alignment": engine == "torch"}
    return partial(make_search.func, replace(options, **{k: v for k, v in wanted.items() if hasattr(options, k)}))


def most_translations(make_search: "partial[Any]") -> int:
    """How many translations of a line the search gives at most; a search without an n best gives one."""
    return getattr(make_search.args[0], "nbest", 1)


main = command("serve", run)

if __name__ == "__main__":
    main()
