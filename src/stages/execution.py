"""One job from its resolved config to its recorded end."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metashot.base.errors import MetashotError
from metashot.base.terminal import printable
from metashot.engine.training.signals import sigterm_interrupts
from metashot.stages.launch import LAUNCH
from metashot.stages.stage_table import STAGES_OF_RUNS, chosen_stages

if TYPE_CHECKING:
    from metashot.engine.cells.record import RunRecord
    from metashot.stages.context import RunContext

LOG_WIDTH = 120


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
    from metashot.base.console import PlainConsole
    from metashot.engine.cells.record import RunRecord
    from metashot.engine.sweeps.pruning import watched
    from metashot.stages.components import make_run_config
    from metashot.stages.context import RunContext
    from metashot.stages.tracking import run_tracker

    recorded = composed if recorded is None else recorded
    config = make_run_config(composed)
    functions = chosen_stages(config)
    tracker = watched(run_tracker(config, recorded, overrides, silent=not LAUNCH.leads))
    console = PlainConsole(width=None if sys.stdout.isatty() else LOG_WIDTH, quiet=not LAUNCH.leads)
    record = RunRecord(output, recorded, overrides, writes=LAUNCH.leads)
    run = RunContext(config, output, console, tracker, record)
    figure: float | None = None
    with concluded(run):
        for function in functions:
            with sigterm_interrupts():
                figure = function(run)
    run.console.print(f"output folder: {output}", soft_wrap=True)
    return figure


def announce(composed: Mapping[str, Any]) -> None:
    """Say what begins, at once: the imports and the model that come next take seconds."""
    stage = composed["stage"]
    if stage in STAGES_OF_RUNS:
        print(stage, flush=True)
        return
    setting = (composed["setting"] or composed["data"]).get("name", "")
    words = " and ".join(map(str, stage)) if isinstance(stage, list) else str(stage)
    names = f"{composed['method'].get('name')}, {composed['model'].get('name')}, {setting}"
    print(printable(f"{words}: {names}"), flush=True)


@contextmanager
def concluded(run: RunContext) -> Generator[None]:
    """Record how the stages end: finished, failed, interrupted or pruned; a SIGTERM ends them as Ctrl-C does."""
    try:
        with sigterm_interrupts(), recorded(run.record):
            yield
    except BaseException as error:
        # On a full disk this fails as well, and must not hide what failed first.
        with suppress(MetashotError):
            run.tracker.finish(_ending(error))
        raise
    run.tracker.finish("ok")


@contextmanager
def recorded(record: RunRecord) -> Generator[None]:
    """Write into a run's record how it ends."""
    try:
        yield
        record.write("finished")
    except BaseException as error:
        with suppress(MetashotError):
            record.write(_ending(error))
        raise


def _ending(error: BaseException) -> Literal["interrupted", "pruned", "failed"]:
    from metashot.engine.sweeps.pruning import Pruned

    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "pruned" if isinstance(error, Pruned) else "failed"
