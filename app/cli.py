"""What every command does before and after its work: compose, check, set up logging, turn errors into exit codes.

`main = command("train", run)` makes the entry point of `python -m app.train`. Hydra does what Hydra does (`--help`,
`--cfg job`, `--info`, `-m`, completion); before it starts a run, everything that will be run is composed and checked.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from app.check import configure_all
from app.compose import (
    CONF,
    Composed,
    compose_one,
    compose_sweep,
    composing,
    plain_values,
    sweep_parameters,
    with_config_dir,
)
from app.errors import ConfigError, Stopped, StorageError, UserError
from app.plugins import open_search_paths
from app.resolvers import note_swept, register_resolvers
from app.roots import ROOTS
from app.runtime.logs import log_to_file, log_to_stderr, stop_log_file
from app.sweepers.registration import name_sweepers, register_sweepers
from app.user_packages import note_packages

Function = Callable[[Any, dict[str, Any]], float | None]

register_resolvers()  # at import: a worker that unpickles a job resolves names before it runs anything of ours
name_sweepers()


def command(config_name: str, function: Function) -> Callable[[], None]:
    """The entry point that composes `conf/<config_name>.yaml` and calls `function(cfg, plugins)`.

    The root is typed by its class in `app.roots.ROOTS`, which the YAML names as `<config_name>_schema`.
    """
    job = Job(config_name, function)

    def main() -> None:
        store_schema(config_name)
        args = arguments(config_name)
        with told(config_name):
            if args.shown is None and not args.silent:
                log_to_stderr()
            if args.checked or (args.composes and args.overrides):
                os.environ["HYDRA_FULL_ERROR"] = (
                    "1"  # what composes raises no error of Hydra's; ours are to reach `told`
                )
                check_command_line(args)
            if args.multirun:
                note_swept(args.swept)
                register_sweepers()
            try:
                hydra.main(str(CONF), config_name, version_base="1.3")(job)()
            except OSError as error:
                if any(frame.f_code is Job.work.__code__ for frame, _ in walk_tb(error.__traceback__)):
                    raise  # not Hydra's, which makes the run directory
                raise StorageError(f"{error.filename}: {error.strerror}; give another run_dir") from None

    return main


@dataclass(frozen=True)
class Job:
    """One run of a command: what Hydra calls with the composed config, here or on another machine."""

    config_name: str
    function: Function

    def __call__(self, node: DictConfig) -> float | None:
        settings = HydraConfig.get()
        directory = Path(settings.runtime.output_dir)
        if "run_dir" in node:
            node.run_dir = str(directory)  # the same key is right in single runs and in sweeps
        try:
            open_search_paths(settings.runtime.config_sources)
            return self.work(node, directory)
        except UserError as error:
            if isinstance(error, ConfigError) and "run_dir" in node:
                with suppress(OSError):  # leave no directory behind, unless there is something in it
                    directory.rmdir()
            if settings.mode == RunMode.MULTIRUN and not isinstance(error, Stopped):
                raise  # Hydra raises it when the other jobs are done; a job that was stopped has no result: it resumes
            tell(self.config_name, error)
            raise SystemExit(error.exit_code) from None

    def work(self, node: DictConfig, directory: Path) -> float | None:
        """Configure and call the function; what it logs is also written into the run's directory."""
        cfg, plugins = configure_node(node, self.config_name)
        if "run_dir" not in node:
            return self.function(cfg, plugins)
        if not logging.getLogger().handlers:  # a launcher's worker, which never was in `main`
            log_to_stderr()
        handler = log_to_file(directory / f"{self.config_name}.log")
        try:
            note_packages(directory)
            return self.function(cfg, plugins)
        finally:
            stop_log_file(handler)


def store_schema(config_name: str) -> None:
    """Done by entry points only: a program that imports this library keeps its ConfigStore as it is."""
    ConfigStore.instance().store(f"{config_name}_schema", ROOTS[config_name], provider="seqwright")


def arguments(config_name: str, argv: list[str] | None = None) -> argparse.Namespace:
    """The part of Hydra's command line that the check needs: overrides, and whether anything will be run at all."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-name", "-cn", default=config_name)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--package", "-p")
    parser.add_argument("--experimental-rerun")
    parser.add_argument("--cfg", "-c", dest="shown")
    parser.add_argument("--info", "-i", nargs="?", const="all", dest="shown")
    parser.add_argument("--help", "-h", action="store_const", const="help", dest="shown")
    for flags in (("--hydra-help",), ("--version",), ("--shell-completion", "-sc")):
        parser.add_argument(*flags, action="store_true", dest="silent")
    args, _ = parser.parse_known_intermixed_args(argv)
    if args.config_dir is not None:
        args.overrides = with_config_dir(args.overrides, args.config_dir)
    ours = args.config_path is None and (CONF / f"{args.config_name}.yaml").is_file()
    args.composes = (
        ours and not args.silent
    )  # a user's own primary config is composed by Hydra alone, and checked by the job
    args.swept = args.overrides  # and what the configuration itself sweeps, once it is composed
    args.checked = args.composes and args.shown is None
    return args


def check_command_line(args: argparse.Namespace) -> None:
    """Compose and check every run that this command line asks for; raises `ConfigError` with all faults of all runs."""
    if args.experimental_rerun is not None:
        raise ConfigError(["--experimental-rerun: reads a pickle, which can run code; give overrides instead"])
    with composing():
        if args.multirun:
            args.swept = sweep_parameters(args.config_name, args.overrides) + args.overrides
            runs = list(compose_sweep(args.config_name, args.overrides))
        else:
            runs = [compose_one(args.config_name, args.overrides)]
        faults: dict[str, list[Composed]] = {}
        for run in runs:
            for fault in run.faults + (check_composed(run.node, args.config_name) if args.checked else []):
                faults.setdefault(fault, []).append(run)
    if faults:
        raise ConfigError([fault + where(having, runs) for fault, having in faults.items()])


def check_composed(node: DictConfig | None, config_name: str) -> list[str]:
    """All faults of one composed config."""
    if node is None:
        return []
    HydraConfig.instance().set_config(node)
    faults: list[str] = []
    for step in (
        lambda: open_search_paths(node.hydra.runtime.config_sources),
        lambda: configure_node(node, config_name),
    ):
        try:
            step()
        except ConfigError as error:
            faults += error.faults
    return faults


def configure_node(node: DictConfig, config_name: str) -> tuple[Any, dict[str, Any]]:
    """The command's root dataclass and its factories, from a composed config."""
    faults: list[str] = []
    values = plain_values(node, faults)
    unresolved = tuple(fault.partition(":")[0] for fault in faults)
    try:
        configured = configure_all(values, ROOTS[config_name])
    except ConfigError as error:
        faults += [fault for fault in error.faults if not unresolved or not fault.startswith(unresolved)]
    if faults:
        raise ConfigError(faults)
    return configured


def where(having: list[Composed], runs: list[Composed]) -> str:
    """Which points of a sweep have a fault, where not all have it."""
    if len(having) == len(runs):
        return ""
    common = set.intersection(*(set(run.overrides) for run in runs))
    point = " ".join(text for text in having[0].overrides if text not in common)
    others = f" and {len(having) - 1} more" if len(having) > 1 else ""
    return f" (at {point}{others})"


@contextmanager
def told(config_name: str) -> Iterator[None]:
    """Errors that the user can mend become a message and an exit code; any other is a bug and keeps its traceback."""
    try:
        yield
    except UserError as error:
        tell(config_name, error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(config_name: str, error: UserError) -> None:
    """One readable message on stderr."""
    lines = [f"app.{config_name}: {error}"]
    if isinstance(error, ConfigError):
        number = "1 fault" if len(error.faults) == 1 else f"{len(error.faults)} faults"
        lines = [f"app.{config_name}: {number} in the configuration, nothing was started"]
        lines += [f"  {fault}" for fault in error.faults]
        lines += ["--help lists the options of every group, --cfg job shows the whole configuration"]
    print("\n".join(lines), file=sys.stderr)
