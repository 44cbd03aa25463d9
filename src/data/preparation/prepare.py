"""`stage=prepare`: makes the files of a setting's tasks, in parallel, skipping what is there already."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, Timeout
from pydantic import Field
from rich.console import Console
from rich.table import Table

from metashot.base.console import PlainConsole
from metashot.base.errors import DataError, suggestion
from metashot.base.files import GONE, HeldFolder, is_read_only, record_of, remove_leftovers
from metashot.base.value_kinds import Count, GivenLine, Name, Positive, Seed
from metashot.data.kshot import POOL_K, POOL_SEED, TARGET_K, TARGET_SEEDS
from metashot.data.preparation.instruction_files import (
    build_instructions,
    instruction_fingerprint,
    is_instruction,
)
from metashot.data.preparation.place import Reach
from metashot.data.preparation.prepared import PreparedFiles, take_prepared
from metashot.data.preparation.task_files import (
    Choice,
    Progress,
    Role,
    build_role,
    dropped_total,
    task_fingerprint,
)
from metashot.data.preparation.work_pool import run_jobs
from metashot.data.recipes import load_recipe, recipe_names
from metashot.data.rows.manifest import Manifest, RoleRecord, read_manifest
from metashot.data.settings import Setting
from metashot.data.sources.download import TransferLimits

Status = Literal["ok", "skipped", "failed"]
LOCK_NAME = ".prepare.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """`conf/prepare/*.yaml`; the field names are its keys."""

    roles: tuple[Literal["train", "test"], ...] = ("train", "test")
    """`train` makes the pools of the training tasks, `test` the k-shot files of the targets."""
    only: tuple[Name, ...] = ()
    """Task names to restrict to; empty for all of the setting."""
    k: Count = TARGET_K
    """Demonstrations per target task, at least one when files are made."""
    seeds: tuple[Seed, ...] = TARGET_SEEDS
    """Demonstration seeds of the targets."""
    pool_k: Positive = POOL_K
    """Most examples per training task."""
    pool_seeds: tuple[Seed, ...] = (POOL_SEED,)
    """Seeds of the training pools."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes; 1 works in this one."""
    source: Literal["recipes", "prepared"] = "recipes"
    """`recipes` builds from raw rows, `prepared` takes finished files."""
    prepared: GivenLine = "allenai/metaicl-data"
    """For `prepared`: a folder of jsonl files, or a dataset id on the hub."""
    cache: Path = Path("downloads")
    """Folder for downloads."""
    online: bool = True
    """Whether the hub and web addresses may be asked; else only `data.raw` and files that are here."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Longest wait for a server."""
    promptsource: Path | None = None
    """PromptSource checkout or package folder, for instruction tasks."""
    force: bool = False
    """Make files anew even if they are there."""
    file: Path | None = None
    """`stage=recipe`: a table for which a first recipe is written beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSettings(PrepareConfig):
    """What to prepare, and from where."""

    root: Path
    """Folder of the prepared data (`data.root`)."""
    setting: Setting
    """The task lists."""
    raw: Path | None = None
    """Folder with source files of your own."""
    recipe_path: tuple[str, ...] = ()
    """Folders with recipes of your own."""
    fixes: bool = False
    """Apply the corrections that recipes record."""

    def __post_init__(self) -> None:
        """Refuse files without demonstrations.

        Raises:
            DataError: `k` is 0.
        """
        if self.k < 1:
            raise DataError("prepare.k", "is 0, as k is", "give k=16, or prepare.k=16 alone")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task in one role."""

    task: str
    role: str
    status: Status
    reason: str = ""
    record: RoleRecord | None = None


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """All outcomes, in the setting's order."""

    outcomes: tuple[Outcome, ...] = field(default_factory=tuple)

    def with_status(self, status: Status) -> list[Outcome]:
        """The outcomes of one kind."""
        return [outcome for outcome in self.outcomes if outcome.status == status]

    def table(self) -> Table:
        """ok, skipped and failed tasks with rows and reasons."""
        table = Table(title="prepared data", title_justify="left")
        for column in ("task", "role", "status", "rows", "dropped", "reason"):
            table.add_column(
                column, justify="right" if column in ("rows", "dropped") else "left", overflow="fold"
            )
        style = {"ok": "green", "skipped": "dim", "failed": "red"}
        for outcome in sorted(self.outcomes, key=lambda one: ("ok", "skipped", "failed").index(one.status)):
            record = outcome.record
            rows = str(sum(file.rows for file in record.files.values())) if record else ""
            dropped = str(dropped_total(record.dropped)) if record else ""
            notes = "; ".join(record.notes) if record else ""
            table.add_row(
                outcome.task, outcome.role, outcome.status, rows, dropped, outcome.reason or notes,
                style=style[outcome.status],
            )  # fmt: skip
        return table


@dataclass(frozen=True, slots=True)
class Job:
    """One task in one role (picklable: jobs cross process borders)."""

    task: str
    role: Role
    choice: Choice
    settings: PrepareSettings


def prepare(settings: PrepareSettings, console: Console | None = None) -> PrepareReport:
    """Make the files of a setting and print what was made, passed over, or could not be had and why.

    A task that fails does not stop the others. Finished tasks are in the manifest at once, so that a killed run
    goes on where it was.

    Raises:
        DataError: the request itself is wrong (an unknown role, source, task or number), or files are missing in a
            folder that cannot be written, or the folder was removed meanwhile.
    """
    shown = console or PlainConsole()
    jobs = _jobs(settings)
    with _alone_in(settings.root, shown) as refusal:
        report = _prepare(settings, jobs, shown, refusal)
    shown.print(report.table())
    shown.print(
        ", ".join(f"{len(report.with_status(status))} {status}" for status in ("ok", "skipped", "failed"))
    )
    return report


def _prepare(
    settings: PrepareSettings, jobs: Sequence[Job], shown: Console, refusal: DataError | None
) -> PrepareReport:
    remove_leftovers(settings.root)
    remove_leftovers(settings.root, "*/.*.tmp")
    manifest = read_manifest(settings.root)
    ready = {
        (job.task, job.role): manifest.get(job.task, job.role) for job in jobs if _is_ready(job, manifest)
    }
    todo = [job for job in jobs if (job.task, job.role) not in ready]
    if todo and refusal is not None:
        raise refusal
    outcomes = {
        key: Outcome(*key, status="skipped", reason="already prepared", record=record)
        for key, record in ready.items()
    }
    work: Callable[[Job, Progress], RoleRecord] = (
        _run_prepared if settings.source == "prepared" else _run_recipe
    )
    for job, result in run_jobs(work, todo, settings.workers, shown):
        key = (job.task, job.role)
        if isinstance(result, RoleRecord):
            manifest.put(job.task, job.role, result)
            outcomes[key] = Outcome(*key, status="ok", record=result)
        else:
            outcomes[key] = Outcome(*key, status="failed", reason=result)
    return PrepareReport(tuple(outcomes[job.task, job.role] for job in jobs))


@contextmanager
def _alone_in(root: Path, shown: Console) -> Generator[DataError | None, None, None]:
    """One preparation a folder: a second one waits, then finds the files made.

    Yields:
        None, or where the folder is read-only the error of whoever has to write.
    """
    refusal: DataError | None = None
    lock = FileLock(root / LOCK_NAME)
    try:
        held = HeldFolder(root)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            shown.print(f"waiting for another preparation in {root}")
            lock.acquire()
    except OSError as error:
        refusal = DataError(
            "data.root", f"{root} cannot be written: {error.strerror or error}", "choose another"
        )
        if not (root.is_dir() and is_read_only(error)):
            raise refusal from error
        held = None
    try:
        yield refusal
        if held is not None and held.is_gone:
            raise DataError(str(root), GONE, "run the same command again")
    finally:
        lock.release()


def _jobs(settings: PrepareSettings) -> list[Job]:
    _check(settings)
    wanted = {
        "train": (settings.setting.train, Choice(settings.pool_k, settings.pool_seeds)),
        "test": (settings.setting.test, Choice(settings.k, settings.seeds)),
    }
    known = {task for tasks, _ in wanted.values() for task in tasks}
    for task in sorted(known):
        if task in ("", ".", "..") or "/" in task or "\\" in task or "\0" in task:
            raise DataError(
                "data.tasks",
                f"{task!r} is no name of a task: its files would lie outside {settings.root}",
                "name tasks without slashes; their folder is data.root",
            )
    for task in settings.only:
        if task not in known:
            raise DataError(
                "prepare.only", f'"{task}" is not in {settings.setting.name}', suggestion(task, known)
            )
    jobs: list[Job] = []
    for role in ("train", "test"):
        if role in settings.roles:
            tasks, choice = wanted[role]
            jobs += [
                Job(task, role, choice, settings)
                for task in tasks
                if not settings.only or task in settings.only
            ]
    return jobs


def _check(settings: PrepareSettings) -> None:
    if not settings.seeds or not settings.pool_seeds:
        raise DataError("prepare.seeds", "no seed is given", "the published ones are [100,13,21,42,87]")
    recipe_names(settings.recipe_path)


def _is_ready(job: Job, manifest: Manifest) -> bool:
    record = manifest.get(job.task, job.role)
    if record is None or job.settings.force or record.fingerprint != _fingerprint(job):
        return False
    folder = job.settings.root / job.task
    return all(
        (folder / name).is_file() and record_of(folder / name).sha256 == file.sha256
        for name, file in record.files.items()
    )


def _fingerprint(job: Job) -> str:
    settings = job.settings
    try:
        if settings.source == "prepared":
            return PreparedFiles.fingerprint(settings.prepared, job.task, job.role, job.choice)
        if is_instruction(job.task):
            return instruction_fingerprint(
                job.task, job.role, job.choice, _reach(settings), settings.promptsource
            )
        return task_fingerprint(
            load_recipe(job.task, settings.fixes, settings.recipe_path),
            job.role,
            job.choice,
            _reach(settings),
        )
    except DataError:
        return ""  # the job itself reports what is wrong


def _run_recipe(job: Job, progress: Progress) -> RoleRecord:
    settings = job.settings
    if is_instruction(job.task):
        return build_instructions(
            job.task, job.role, job.choice, settings.root, _reach(settings), settings.promptsource
        )
    recipe = load_recipe(job.task, settings.fixes, settings.recipe_path)
    return build_role(recipe, job.role, job.choice, settings.root, _reach(settings), progress)


def _run_prepared(job: Job, progress: Progress) -> RoleRecord:
    return take_prepared(job.settings.prepared, job.task, job.role, job.choice, job.settings.root)


def _reach(settings: PrepareSettings) -> Reach:
    return Reach(
        raw=settings.raw,
        cache=settings.cache,
        online=settings.online,
        limits=TransferLimits(timeout_seconds=settings.timeout_seconds),
    )
