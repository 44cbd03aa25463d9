"""What sweeps and searches share: composing jobs, wrapping the task so that it keeps the ledger, launching.

The underscore keeps Hydra's plugin scan from importing this module, and torch with it, at every start.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from metashot.base.console import PlainConsole
from metashot.base.errors import ConfigError, ExitStatus, MetashotError, OutputError
from metashot.base.files import write_atomic
from metashot.base.secrets import HIDDEN, recorded_overrides, secrets_of, without_secrets
from metashot.base.terminal import printable
from metashot.engine.sweeps.ledger import JOB_VARIABLE, Job, JobRecord, JobState, Ledger
from metashot.engine.sweeps.pruning import Pruned
from metashot.engine.sweeps.summary import counts, sweep_markdown, sweep_table
from metashot.engine.tracking.tracker import first_line

log = logging.getLogger(__name__)

_IN_TURN = "basic"
"""Hydra's own choice of `hydra/launcher`: one job after the other in this process."""
_OF_A_FOLDER = ("hydra", "logger")
"""Nodes that speak of a folder that only a running job has."""


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
        ledger = Ledger(self.folder)
        key = os.environ[JOB_VARIABLE]
        ledger.start(key, Path(HydraConfig.get().runtime.output_dir))
        try:
            figure = self.task(config)
        except Pruned as reason:
            log.info("pruned: %s", reason)
            ledger.fail(key, reason, pruned=True)
            raise
        except KeyboardInterrupt as reason:
            ledger.interrupt(key, reason)
            raise
        except MetashotError as error:
            log.error("the job failed: %s", error)
            ledger.fail(key, error)
            raise
        except Exception as error:
            log.exception("the job failed")
            ledger.fail(key, error)
            raise
        ledger.finish(key, figure)
        return figure


class Jobs:
    """Composes and launches the jobs of one sweep.

    Args:
        context: Hydra's.
        config: the sweep's config.
        task: what a job runs.
        folder: the sweep's folder.
    """

    def __init__(self, context: HydraContext, config: DictConfig, task: TaskFunction, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self._loader = context.config_loader
        self._given: dict[str, tuple[str, ...]] = {}  # what records do not hold: overrides with their secrets
        self._shared: set[str] | None = None  # words that every job of the sweep has
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=LedgerTask(task, folder), config=config
        )

    @property
    def in_turn(self) -> bool:
        """Whether jobs run one after the other in this process."""
        return self.config.hydra.runtime.choices["hydra/launcher"] == _IN_TURN

    def compose(self, overrides: Sequence[str]) -> Job:
        """Compose a job without running it; a bad override raises here, before any job starts."""
        composed = self._loader.load_sweep_config(self.config, list(overrides))
        self._check_lists(composed, overrides)
        self._check_launcher(composed)
        keys = [str(key) for key in composed if key not in _OF_A_FOLDER]
        config = {key: _plain(composed, key) for key in keys}
        secrets = secrets_of(config, OmegaConf.to_container(composed, resolve=False))
        words = [word if recorded_overrides([word], secrets) else _without_value(word) for word in overrides]
        job = Job(tuple(overrides), without_secrets(config, secrets), tuple(words))
        self._given[job.key] = job.overrides
        self._shared = set(words) if self._shared is None else self._shared & set(words)
        return job

    def launch(self, records: Sequence[JobRecord], environment: Sequence[Mapping[str, str]] = ()) -> None:
        """Run these jobs, each in a folder that its number names, or that `hydra.sweep.subdir` makes of it.

        Args:
            records: jobs to run.
            environment: variables of each job, as many as jobs, or none.
        """
        launched: list[list[str]] = []
        for place, record in enumerate(records):
            variables = {JOB_VARIABLE: record.key, **(environment[place] if environment else {})}
            # Workers compose the config again: what was chosen here must not be chosen anew there.
            pinned = [f"hydra.sweep.dir={quoted(str(self.folder))}"]
            pinned += [f"hydra.sweep.subdir={quoted(self._subdir(record))}"]
            pinned += [f"+hydra.job.env_set.{name}={quoted(value)}" for name, value in variables.items()]
            launched.append([*self._given[record.key], *pinned])
        if not launched:
            return
        self._announce(records)
        try:
            with full_disk(self.folder):
                ended = self._launcher.launch(launched, initial_job_idx=records[0].number)
            if any(os.strerror(errno.ENOSPC) in str(_failure(one)) for one in ended):
                raise _disk_is_full(self.folder)
            ledger = Ledger(self.folder)
            for record, one in zip(records, ended, strict=True):
                failure = _failure(one)
                if failure is not None and ledger.read(record.key).state is JobState.WAITING:
                    ledger.fail(record.key, failure)  # before the job itself could
        except MetashotError:
            raise
        except Exception as error:  # a worker was killed, say; a job's own error never gets here
            print(f"error: the launcher failed: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
            log.exception("the launcher failed; jobs it was running stay in the state `running`")

    def _announce(self, records: Sequence[JobRecord]) -> None:
        """One line for each job that starts, with what is its own: Hydra's would repeat every override."""
        shared = (self._shared or set()) if len(self._given) > 1 else set()
        for record in records:
            own = " ".join(word for word in record.overrides if word not in shared)
            PlainConsole().print(printable(f"job {record.number}: {own}"), soft_wrap=True, markup=False)

    def _subdir(self, record: JobRecord) -> str:
        composed = self._loader.load_sweep_config(self.config, list(self._given[record.key]))
        with open_dict(composed):
            composed.hydra.job.num = composed.hydra.job.id = record.number
        return str(composed.hydra.sweep.subdir)

    def _check_launcher(self, composed: DictConfig) -> None:
        """One launcher starts all jobs, so a job cannot choose one.

        Raises:
            ConfigError: a swept choice names a launcher of its own.
        """
        own = composed.hydra.runtime.choices["hydra/launcher"]
        chosen = self.config.hydra.runtime.choices["hydra/launcher"]
        if own != chosen:
            raise ConfigError(
                "hydra/launcher",
                f"one job asks for {own!r}, the sweep for {chosen!r}",
                f"write hydra/launcher={own}",
            )

    def _check_lists(self, composed: DictConfig, overrides: Sequence[str]) -> None:
        """A list key that is swept over bare values gives each job one value where it needs a list.

        Raises:
            ConfigError: such a key.
        """
        for override in overrides:
            key, _, value = override.partition("=")
            if value and OmegaConf.is_list(OmegaConf.select(self.config, key)):
                given = OmegaConf.select(composed, key)
                if given is not None and not OmegaConf.is_list(given):
                    raise ConfigError(key, f"takes a list, got {value} in one job", f"write {key}=[{value}]")


@contextmanager
def full_disk(folder: Path) -> Generator[None]:
    """A full disk ends the sweep: no further job could be recorded.

    Raises:
        OutputError: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _disk_is_full(folder) from error


def _failure(ended: JobReturn) -> Exception | None:
    """What a job raised, also where the ledger could not take it; Hydra would write of it when asked."""
    try:
        with redirect_stderr(io.StringIO()):
            _ = ended.return_value
    except Exception as error:
        return error
    return None


def _disk_is_full(folder: Path) -> OutputError:
    remedy = "free it, or choose another results_root, and start again"
    return OutputError(str(folder), "the disk is full, the sweep stops", remedy)


def _without_value(word: str) -> str:
    return f"{word.partition('=')[0]}={HIDDEN}"


def _plain(config: DictConfig, key: str) -> Any:
    """A top-level value of a config, its interpolations resolved."""
    if OmegaConf.is_missing(config, key):
        return "???"
    value = config[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


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
        console = PlainConsole()
        if len(left) < len(keys):
            done = len(keys) - len(left)
            console.print(f"{done} of {len(keys)} jobs are finished already and are not run again")
        if jobs.in_turn:
            _run_in_turn(jobs, ledger, left, swept_keys(rows))
        else:
            jobs.launch(left)
        return conclude(ledger, jobs.folder, keys, console)


def _run_in_turn(jobs: Jobs, ledger: Ledger, left: Sequence[JobRecord], swept: Collection[str]) -> None:
    """One job after the other, until a mistake shows that the others would make it too."""
    earlier: set[str] = set()
    for place, record in enumerate(left):
        jobs.launch([record])
        outcome = ledger.read(record.key)
        mistake = outcome.mistake
        common = mistake and not any(_belongs(mistake, key) for key in swept)
        if (common or mistake in earlier) and place + 1 < len(left):
            log.error(
                "%d jobs are not started: they would fail as job %d did", len(left) - place - 1, record.number
            )
            return
        if mistake:
            earlier.add(mistake)


def swept_keys(rows: Sequence[Sequence[str]]) -> set[str]:
    """Keys that do not say the same in every job."""
    words = [set(row) for row in rows]
    shared = set.intersection(*words) if words else set()
    return {word.lstrip("+~").partition("=")[0] for row in words for word in row - shared}


def _belongs(mistake: str, key: str) -> bool:
    """Whether a mistake's place is this key, a part of its node, or a file."""
    dotted = key.replace("/", ".")
    return (
        mistake == dotted
        or mistake.startswith(f"{dotted}.")
        or "/" in mistake
        or not re.match(r"[a-z_.]+$", mistake)
    )


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
        raise SystemExit(ExitStatus.FAILED)
    return records


def quoted(value: str) -> str:
    """A string that Hydra's override grammar reads back as it is."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
