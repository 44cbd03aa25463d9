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

from metashot.engine.files import write_atomic
from metashot.engine.sweeps.ledger import Job, JobRecord, JobState, Ledger
from metashot.engine.sweeps.pruning import Pruned
from metashot.engine.sweeps.summary import counts, sweep_markdown, sweep_table

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
        except KeyboardInterrupt as reason:
            ledger.interrupt(key, reason)
            raise
        except Exception as error:
            log.exception("the job failed")
            ledger.fail(key, error)
            raise
        ledger.finish(key, figure)
        return figure


@dataclass(frozen=True, slots=True)
class Jobs:
    """Composes and launches the jobs of one sweep.

    Attributes:
        context: Hydra's.
        config: the sweep's config.
        launcher: Hydra's, whichever was chosen.
        folder: the sweep's folder.
    """

    context: HydraContext
    config: DictConfig
    launcher: Launcher
    folder: Path

    def compose(self, overrides: Sequence[str]) -> Job:
        """Compose a job without running it; a bad override raises here, before any job starts."""
        composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            for node in ("hydra", "logger"):  # they speak of a folder that only a running job has
                composed.pop(node, None)
        plain: Any = OmegaConf.to_container(composed, resolve=True)
        return Job(tuple(overrides), plain)

    def launch(self, records: Sequence[JobRecord], environment: Sequence[Mapping[str, str]] = ()) -> None:
        """Run these jobs, each in a folder that its number names.

        Args:
            records: jobs to run.
            environment: variables of each job, as many as jobs, or none.
        """
        launched: list[list[str]] = []
        for place, record in enumerate(records):
            variables = environment[place] if environment else {}
            # Workers compose the config again: what was chosen here must not be chosen anew there.
            pinned = [f"hydra.sweep.dir={quoted(str(self.folder))}", f"hydra.sweep.subdir='{record.number}'"]
            pinned += [f"+hydra.job.env_set.{name}={quoted(value)}" for name, value in variables.items()]
            launched.append([*record.overrides, *pinned])
        if not launched:
            return
        try:
            self.launcher.launch(launched, initial_job_idx=records[0].number)
        except Exception:  # a worker was killed, say; a job's own error never gets here
            log.exception("the launcher failed; jobs it was running stay in the state `running`")


def run_all(jobs: Jobs, rows: Sequence[Sequence[str]]) -> list[JobRecord]:
    """Compose every job, run those that are left, print the summary.

    Args:
        jobs: composes and launches.
        rows: overrides of every job.

    Raises:
        ConfigError: a job's config has changed since the sweep began.
        SystemExit: with status 1 when a job failed.
    """
    composed = [jobs.compose(row) for row in rows]
    ledger = Ledger(jobs.folder)
    with ledger.lock():
        left = ledger.plan(composed)
        keys = list(dict.fromkeys(job.key for job in composed))
        console = Console()
        if len(left) < len(keys):
            done = len(keys) - len(left)
            console.print(f"{done} of {len(keys)} jobs are finished already and are not run again")
        jobs.launch(left)
        return conclude(ledger, jobs.folder, keys, console)


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
