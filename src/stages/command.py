"""The command: compose the config, check it, run its stages, report. `run.py` and the wheel's `metashot` call it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metashot.data.errors import MetashotError, suggestion
from metashot.data.terminal import printable
from metashot.engine.components.choices import CONFIG_FOLDER
from metashot.engine.errors import ConfigError
from metashot.engine.training.signals import Interrupted, sigterm_interrupts
from metashot.stages.command_line import with_new_keys
from metashot.stages.composition_errors import GROUP_NULL, SEARCH_PATH, explain
from metashot.stages.launch import LAUNCH
from metashot.stages.removed_nodes import check_nothing_is_removed
from metashot.stages.replay import replay
from metashot.stages.secrets import without_secrets
from metashot.stages.shared_paths import anchored

if TYPE_CHECKING:
    from metashot.stages.context import RunContext
    from metashot.stages.run_config import RunConfig

FULL_ERROR = "HYDRA_FULL_ERROR"
SHOW_ALL = os.environ.get(FULL_ERROR) == "1"
"""Whether the user asked for whole tracebacks, before `main` sets the variable for Hydra."""
USAGE_EXIT = 2
RUN_FILES = (".hydra", "run.json")
LOG_WIDTH = 120
GOING_ON = (
    "what was finished is stored; the same command goes on, a single run with its folder as hydra.run.dir"
)
PROMPT_METHODS = "metashot.metaprompt."
"""Where the methods lie that tune prompts; all others score options in context."""
Stage = Callable[[Any], float | None]


def register_resolvers() -> None:
    """`${run_stamp:}` and `${basename:path}`."""
    stamp = LAUNCH.stamp  # plain text, since launchers send resolvers to their workers
    OmegaConf.register_new_resolver("run_stamp", lambda: stamp, replace=True)
    OmegaConf.register_new_resolver("basename", lambda path: Path(str(path)).name, replace=True)


STAGES = {
    "prepare": {"icl": "preparation.prepare_stage", "prompt": "metaprompt.prepare_stage"},
    "doctor": {"icl": "preparation.doctor_stage"},
    "train": {"icl": "icl_training.train_stage", "prompt": "metaprompt.train_stage"},
    "find_lr": {"icl": "icl_training.find_lr_stage"},
    "evaluate": {"icl": "icl_evaluation.evaluate_stage", "prompt": "metaprompt.evaluate_stage"},
    "plan": {"icl": "icl_evaluation.plan_stage", "prompt": "metaprompt_checks.plan_stage"},
    "probe": {"prompt": "metaprompt_checks.probe_stage"},
    "export": {"icl": "icl_evaluation.export_stage", "prompt": "metaprompt_checks.export_stage"},
    "report": {"icl": "reports.report_stage", "prompt": "reports.report_stage"},
    "compare": {"icl": "reports.compare_stage", "prompt": "reports.compare_stage"},
}
"""Stage -> method family -> function of `metashot.stages`, imported when it runs: most of a short command is imports."""


def check_stage(composed: Mapping[str, Any]) -> None:
    """Refuse a stage that does not exist, or that the method has no use for, before anything is imported.

    Raises:
        ConfigError: such a stage.
    """
    family = "prompt" if str(composed["method"].get("_target_", "")).startswith(PROMPT_METHODS) else "icl"
    asked = composed["stage"]
    for name in asked if isinstance(asked, list) else [asked]:
        if name not in STAGES:
            raise ConfigError("stage", f"unknown stage {name!r}", suggestion(str(name), STAGES))
        if family not in STAGES[name]:
            useful = [stage for stage, functions in STAGES.items() if family in functions]
            method = composed["method"].get("name")
            raise ConfigError(
                "stage", f"method {method!r} has no stage {name!r}", f"one of {', '.join(useful)}"
            )


def chosen_stages(config: RunConfig) -> list[Stage]:
    """The functions of `stage=...`, in order."""
    family = "prompt" if type(config.method).__module__.startswith(PROMPT_METHODS) else "icl"
    functions: list[Stage] = []
    for name in config.stages:
        module, _, function = STAGES[name][family].partition(".")
        functions.append(getattr(import_module(f"metashot.stages.{module}"), function))
    return functions


def execute(
    composed: dict[str, Any], output: Path, overrides: list[str], recorded: dict[str, Any] | None = None
) -> float | None:
    """Run the stages of a resolved config; returns the last stage's figure, for sweepers.

    Args:
        composed: the config.
        output: the run's folder.
        overrides: of the command line.
        recorded: the config as `run.json` and trackers may hold it; by default as it is.
    """
    from rich.console import Console

    from metashot.engine.runs.record import RunRecord
    from metashot.engine.sweeps.pruning import watched
    from metashot.stages.components import make_run_config
    from metashot.stages.context import RunContext
    from metashot.stages.tracking import run_tracker

    recorded = composed if recorded is None else recorded
    config = make_run_config(composed)
    functions = chosen_stages(config)
    tracker = watched(run_tracker(config, recorded, overrides, silent=not LAUNCH.leads))
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH, quiet=not LAUNCH.leads)
    record = RunRecord(output, recorded, overrides, writes=LAUNCH.leads)
    run = RunContext(config, output, console, tracker, record)
    figure: float | None = None
    with concluded(run):
        for function in functions:
            figure = function(run)
    run.console.print(f"output folder: {output}", soft_wrap=True)
    return figure


def announce(composed: Mapping[str, Any]) -> None:
    """Say what begins, at once: the imports and the model that come next take seconds."""
    stage = composed["stage"]
    setting = (composed["setting"] or composed["data"]).get("name", "")
    words = " and ".join(map(str, stage)) if isinstance(stage, list) else str(stage)
    print(
        f"{words}: {composed['method'].get('name')}, {composed['model'].get('name')}, {setting}", flush=True
    )


@contextmanager
def concluded(run: RunContext) -> Generator[None]:
    """Record how the stages end: finished, failed or interrupted; a SIGTERM ends them as Ctrl-C does."""
    try:
        with sigterm_interrupts():
            yield
        run.record.write("finished")
    except BaseException as error:
        # On a full disk these fail as well, and must not hide what failed first.
        with suppress(MetashotError):
            run.record.write("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        with suppress(MetashotError):
            run.tracker.finish("failed")
        raise
    run.tracker.finish("ok")


@hydra.main(config_path=str(CONFIG_FOLDER), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> float | None:
    """One job of a run or multirun. In a multirun a mistake fails its job only; alone it ends the process."""
    settings = HydraConfig.get()
    output = Path(settings.runtime.output_dir)
    try:
        with nothing_left(output):
            overrides = list(settings.overrides.task)
            if composed.stage == "rerun":
                composed, overrides = replay(composed, overrides)
            config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
            if settings.job.chdir:
                config = anchored(config, Path(settings.runtime.cwd))
            check_nothing_is_removed(config)  # pyright: ignore[reportArgumentType]
            check_stage(config)  # pyright: ignore[reportArgumentType]
            if settings.mode is RunMode.RUN and LAUNCH.leads:
                announce(config)  # pyright: ignore[reportArgumentType]
            recorded = without_secrets(config, OmegaConf.to_container(composed, resolve=False))
            return execute(config, output, overrides, recorded)  # pyright: ignore[reportArgumentType]
    except (MetashotError, OmegaConfBaseException) as error:
        if settings.mode is RunMode.MULTIRUN or SHOW_ALL:
            raise
        return fail(str(error) if isinstance(error, MetashotError) else explain(error))


@contextmanager
def nothing_left(output: Path) -> Generator[None]:
    """After a user's mistake, remove an output folder that holds no result."""
    try:
        yield
    except (MetashotError, OmegaConfBaseException):
        if (
            LAUNCH.leads
            and output.is_dir()
            and all(path.name in RUN_FILES or path.suffix == ".log" for path in output.iterdir())
        ):
            shutil.rmtree(output)
            with suppress(OSError):  # the folders of the day, unless other runs are in them
                output.parent.rmdir()
                output.parent.parent.rmdir()
        raise


def fail(message: str) -> NoReturn:
    """Print the one-line error, once in a launch of several processes, and leave with the status of a usage error."""
    if LAUNCH.tells(message):
        print(f"error: {printable(message)}", file=sys.stderr)
    raise SystemExit(USAGE_EXIT)


def main() -> None:
    """Run, and turn a user's mistake into one line and exit status 2."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # hydra/launcher=ray would report to its makers
    warnings.filterwarnings("error", message=f"{SEARCH_PATH}.* is not available")
    logging.raiseExceptions = False  # a log file that cannot be written (a full disk) is no second error
    os.environ[FULL_ERROR] = "1"  # makes Hydra raise, where it would print and exit by itself
    sys.argv[1:] = with_new_keys(sys.argv[1:])
    try:
        with LAUNCH.joined(), sigterm_interrupts():
            register_resolvers()
            job()
    except (HydraException, OmegaConfBaseException) as error:
        if SHOW_ALL:
            raise
        fail(explain(error))
    except (ValueError, UserWarning) as error:
        if SHOW_ALL or not str(error).startswith((GROUP_NULL, SEARCH_PATH)):
            raise
        fail(explain(error))
    except MetashotError as error:  # of the sweep itself; a job has its own
        if SHOW_ALL:
            raise
        fail(str(error))
    except OSError as error:
        if SHOW_ALL or error.filename is None:
            raise
        print(
            f"error: {printable(str(error.filename))}: {error.strerror} ({FULL_ERROR}=1 shows where)",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt as error:
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        if LAUNCH.leads:
            print(f"interrupted: {stop} ({GOING_ON})", file=sys.stderr)
        raise SystemExit(stop.exit_status) from None
