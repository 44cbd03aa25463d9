"""What both sweepers share: composing jobs, wrapping the task so that it keeps the ledger, launching.

The underscore keeps Hydra's plugin scan from importing this module, and torch with it, at every start.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from engine.files import write_atomic
from engine.ledger import Job, JobRecord, JobState, Ledger
from engine.pruning import TRIAL_VARIABLE, Pruned
from engine.sweep_summary import counts, sweep_markdown, sweep_table

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LedgerTask:
    """The task function with its place in the ledger; runs in the job's own process.

    Attributes:
        task: what to run.
        folder: the sweep's folder.
    """

    task: TaskFunction
    folder: Path

    def __call__(self, config: DictConfig) -> Any:
        """Run the job and record how it ends; an error also goes to the job's own log."""
        settings = HydraConfig.get()
        ledger = Ledger(self.folder)
        key = Job(tuple(settings.overrides.task), {}).key
        ledger.start(key, Path(settings.runtime.output_dir))
        try:
            figure = self.task(config)
        except Pruned as reason:
            log.info("pruned: %s", reason)
            ledger.fail(key, reason, pruned=True)
            raise
        except Exception as error:
            log.exception("the job failed")
            ledger.fail(key, error)
            raise
        ledger.finish(key, figure)
        return figure


def compose_job(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> Job:
    """Compose a job without running it; a bad override raises here, before any job starts."""
    composed = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        for node in ("hydra", "logger"):  # they speak of a folder that only a running job has
            composed.pop(node, None)
    plain = OmegaConf.to_container(composed, resolve=True)
    return Job(tuple(overrides), dict(plain))  # pyright: ignore[reportArgumentType, reportCallIssue]


def launch(
    launcher: Launcher,
    folder: Path,
    records: Sequence[JobRecord],
    environment: Sequence[Mapping[str, str]] = (),
) -> None:
    """Run these jobs, each in a folder that its number names.

    Args:
        launcher: Hydra's, whichever was chosen.
        folder: the sweep's folder.
        records: jobs to run.
        environment: variables per job, as many as jobs, or none.
    """
    jobs: list[list[str]] = []
    for place, record in enumerate(records):
        variables = environment[place] if environment else {}
        # Workers compose the config again: what was chosen here must not be chosen anew there.
        pinned = [
            f"hydra.sweep.dir={quoted(str(folder))}",
            f"hydra.sweep.subdir={quoted(str(record.number))}",
        ]
        pinned += [f"+hydra.job.env_set.{name}={quoted(value)}" for name, value in variables.items()]
        jobs.append([*record.overrides, *pinned])
    if jobs:
        launcher.launch(jobs, initial_job_idx=records[0].number)


def trial_variable(text: str) -> dict[str, str]:
    """The variable by which a job finds its trial."""
    return {TRIAL_VARIABLE: text}


def conclude(ledger: Ledger, folder: Path, keys: Sequence[str], console: Console) -> list[JobRecord]:
    """Print and write the summary of these jobs.

    Raises:
        SystemExit: with status 1 when a job failed.
    """
    wanted = set(keys)
    records = [record for record in ledger.records() if record.key in wanted]
    write_atomic(folder / "summary.md", sweep_markdown(records))
    console.print(sweep_table(records))
    console.print(f"sweep folder: {folder}", soft_wrap=True)
    if any(
        record.state is not JobState.FINISHED and record.state is not JobState.PRUNED for record in records
    ):
        print(f"error: sweep: {counts(records)} (the same command runs what is left)", file=sys.stderr)
        raise SystemExit(1)
    return records


def quoted(value: str) -> str:
    """A string that Hydra's override grammar reads back as it is."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
