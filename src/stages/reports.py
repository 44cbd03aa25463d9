"""Stages that serve every method: reports and comparisons over finished runs."""

from __future__ import annotations

from pathlib import Path

from metashot.base.components.values import fields_of
from metashot.base.errors import ConfigError, OutputError
from metashot.engine.cells.results import RESULTS_FILE
from metashot.engine.report.build import ReportSettings, write_report
from metashot.engine.report.compare import CompareSettings, compare_runs
from metashot.stages.context import RunContext


def report_stage(run: RunContext) -> None:
    """Write tables, plots and the page of the runs in `runs` (by default all under `results_root` and this one).

    Raises:
        OutputError: folders that could not be read; the report of the rest is written first.
    """
    keys = run.config.report
    folders = _run_folders(run) or (run.results_root, *_own_results(run))
    settings = ReportSettings(folders, keys.folder or run.output, own=run.output, **fields_of(keys))
    outcome = write_report(settings, run.console)
    for path in outcome.files:
        if path.suffix == ".html":
            run.tracker.artifact("report", "report", path)
    lost = list(map(str, outcome.lost))
    if lost:
        raise OutputError(
            lost[0] + (f" and {len(lost) - 1} more" if len(lost) > 1 else ""),
            "cannot be read or is damaged; the report is of the other runs",
            "mend it (see Problems in the report), or name the runs without it",
        )


def compare_stage(run: RunContext) -> None:
    """Compare two runs: config, tasks with significance, flipped examples.

    Raises:
        ConfigError: not exactly two folders.
    """
    folders = _run_folders(run)
    if len(folders) != 2:
        raise ConfigError(
            "runs", f"stage=compare takes two folders, got {len(folders)}", "'runs=[<first>,<second>]'"
        )
    compare_runs(CompareSettings(*folders, run.output, **fields_of(run.config.compare)), run.console)


def _own_results(run: RunContext) -> tuple[Path, ...]:
    """This run's folder, where an earlier stage of it has left results outside `results_root`."""
    apart = not run.output.resolve().is_relative_to(run.results_root.resolve())
    left = any(run.output.glob(RESULTS_FILE)) or any(run.output.glob(f"prompt=*/{RESULTS_FILE}"))
    return (run.output,) if apart and left else ()


def _run_folders(run: RunContext) -> tuple[Path, ...]:
    missing = next((folder for folder in run.config.runs if not folder.is_dir()), None)
    if missing is not None:
        raise ConfigError("runs", f"no folder {str(missing)!r}", "give output folders of runs")
    return run.config.runs
