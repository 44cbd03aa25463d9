"""The ledger of a sweep: one record per job, so that the same command, started again, does what is left.

A job is known by its overrides. Its record also holds the resolved config: when the same overrides mean
another config today, the sweep is refused with the difference instead of mixing two experiments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metashot.base.errors import ConfigError, MetashotError, OutputError
from metashot.base.files import output_errors, remove_leftovers, write_json
from metashot.base.json_text import SEAL, digest_of, read_json, sealed, unsealed
from metashot.base.secrets import without_secrets_in
from metashot.engine.cells.config_difference import config_changes

PROJECT = "metashot"
FORMAT_VERSION = 1
HEADER = "ledger.json"
JOB_VARIABLE = "METASHOT_JOB"
"""Environment variable of a job of a sweep; its value is the job's key."""
NOT_DECIDING = (
    "logger", "hydra", "results_root", "name", "notes", "tags", "report", "compare", "plan",
)  # fmt: skip
"""Config nodes that decide no result: they may change between two starts of a sweep, and make no job another one."""

_KEY_CHARACTERS = 12
_SHOWN_CHANGES = 5


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    """Started; after a kill it stays so, and is run again."""
    INTERRUPTED = "interrupted"
    """Stopped by a signal; run again."""
    FINISHED = "finished"
    FAILED = "failed"
    PRUNED = "pruned"
    """Stopped early by a search; not run again."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a sweep.

    Attributes:
        overrides: the command line that makes it, for example `("method=direct", "k=4")`.
        config: its resolved config, nested, as files may hold it.
        recorded: its overrides as files may hold them, where these are other ones: without secrets.
    """

    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    recorded: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """Digest of the overrides that decide results, whatever their order."""
        return digest_of(sorted(filter(decides, self.overrides)))[:_KEY_CHARACTERS]


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What the ledger knows of a job.

    Attributes:
        key: digest of the overrides.
        number: place in the sweep, which names the output folder.
        overrides: as given.
        digest: of the resolved config, less what decides no result.
        config: that config.
        state: where it stands.
        folder: output folder of the latest attempt.
        figure: what the job returned, in percent for evaluations.
        error: one line, when it failed.
        attempts: how often it was started.
        mistake: the config key or file that a user's mistake lies in; empty for other errors.
    """

    key: str
    number: int
    overrides: tuple[str, ...]
    digest: str
    config: dict[str, Any]
    state: JobState = JobState.WAITING
    folder: str = ""
    figure: float | None = None
    error: str = ""
    attempts: int = 0
    mistake: str = ""


class Ledger:
    """Records of one sweep in `<folder>/ledger/`, one file a job, each written whole.

    Args:
        folder: the sweep's folder.

    Raises:
        OutputError: the folder holds the ledger of another program or version, or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"
        remove_leftovers(self.folder)
        header = self.folder / HEADER
        own = {"project": PROJECT, "format": FORMAT_VERSION}
        if not header.is_file():
            write_json(header, own)
            return
        try:
            found = read_json(header)
        except ValueError:
            found = None
        if found != own:
            raise OutputError(
                str(header),
                f"is not a ledger of {PROJECT} format {FORMAT_VERSION}: {found}",
                "choose another hydra.sweep.dir",
            )

    def lock(self) -> FileLock:
        """Held by the process that runs the sweep.

        Raises:
            OutputError: another process holds it.
        """
        lock = FileLock(self.folder / ".lock", timeout=0)
        with output_errors(self.folder):
            try:
                lock.acquire()
            except Timeout:
                raise OutputError(
                    str(self.folder), "another process runs this sweep", "wait for it, or stop it"
                ) from None
        return lock

    def plan(self, jobs: Sequence[Job]) -> tuple[JobRecord, ...]:
        """Enter the jobs; returns the records of those that are not finished yet, each once.

        Raises:
            ConfigError: a job that is known under another config.
        """
        known = {record.key: record for record in self.records()}
        next_number = 1 + max((record.number for record in known.values()), default=-1)
        wanted: dict[str, JobRecord] = {}
        for job in jobs:
            config = decisive(job.config)
            record = known.get(job.key) or wanted.get(job.key)
            words = job.overrides if job.recorded is None else job.recorded
            if record is None:
                record = JobRecord(job.key, next_number, words, digest_of(config), config)
                next_number += 1
                self._write(record)
            elif record.digest != digest_of(config):
                raise _changed(record, config)
            elif record.overrides != words:
                record = replace(record, overrides=words)
                self._write(record)
            wanted[job.key] = record
        done = (JobState.FINISHED, JobState.PRUNED)
        return tuple(record for record in wanted.values() if record.state not in done)

    def start(self, key: str, folder: Path) -> None:
        """A job begins in `folder`."""
        record = self.read(key)
        self._write(
            replace(
                record,
                state=JobState.RUNNING,
                folder=str(folder),
                attempts=record.attempts + 1,
                error="",
                mistake="",
                figure=None,
            )
        )

    def finish(self, key: str, figure: float | None) -> None:
        """A job has ended well."""
        self._write(replace(self.read(key), state=JobState.FINISHED, figure=figure))

    def fail(self, key: str, error: BaseException, *, pruned: bool = False) -> None:
        """A job has ended with an error, or was stopped early."""
        state = JobState.PRUNED if pruned else JobState.FAILED
        text = without_secrets_in(" ".join(str(error).split())) or type(error).__name__
        mistake = error.where if isinstance(error, MetashotError) else ""
        name = f"{type(error).__name__}: {text}"
        self._write(replace(self.read(key), state=state, error=name, mistake=mistake))

    def interrupt(self, key: str, reason: KeyboardInterrupt) -> None:
        """A signal has stopped a job."""
        record = self.read(key)
        self._write(replace(record, state=JobState.INTERRUPTED, error=str(reason) or "Ctrl-C"))

    def read(self, key: str) -> JobRecord:
        """The record of a job.

        Raises:
            OutputError: there is none, or its file is damaged.
        """
        path = self._path(key)
        try:
            content = read_json(path)
            # Records of earlier versions carry no seal.
            content = unsealed(content) if SEAL in content else content
            content["overrides"] = tuple(content["overrides"])
            content["state"] = JobState(content["state"])
            return JobRecord(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                str(path), f"cannot be read: {error}", "remove it: the job then runs again"
            ) from None

    def records(self) -> list[JobRecord]:
        """All records by number."""
        paths = [path for path in self.folder.glob("*.json") if path.name != HEADER]
        return sorted((self.read(path.stem) for path in paths), key=lambda record: record.number)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _write(self, record: JobRecord) -> None:
        write_json(self._path(record.key), sealed(asdict(record)))


def decides(override: str) -> bool:
    """Whether an override, as written, belongs to a node that decides results."""
    key = override.lstrip("+~").partition("=")[0]
    return re.split(r"[./@:]", key, maxsplit=1)[0] not in NOT_DECIDING


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides results, as JSON gives it back."""
    kept = {key: value for key, value in config.items() if key not in NOT_DECIDING}
    return json.loads(json.dumps(kept, default=str))


def _changed(record: JobRecord, config: Mapping[str, Any]) -> ConfigError:
    changes = config_changes(record.config, config)
    shown = "; ".join(map(str, changes[:_SHOWN_CHANGES]))
    more = f"; {len(changes) - _SHOWN_CHANGES} more" if len(changes) > _SHOWN_CHANGES else ""
    return ConfigError(
        f"job {record.number} ({' '.join(record.overrides) or 'no overrides'})",
        f"its config has changed since this sweep began: {shown}{more}",
        "undo the change, or choose another hydra.sweep.dir",
    )
