"""What a prepared folder holds and where it came from: `<root>/manifest.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metashot.base.errors import DataError
from metashot.base.files import FileRecord, data_errors, record_of, write_json
from metashot.base.json_text import SEAL, parse_json, sealed, unsealed
from metashot.data.task import Scoring, TaskType

MANIFEST_NAME = "manifest.json"
_VERSION = 2
_UNSEALED_VERSION = 1


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """One task in one role.

    Attributes:
        fingerprint: digest of recipe, correction switch, k and seeds: same digest, same files.
        fixes: whether recorded corrections were applied.
        source: place that answered, with its revision.
        k: examples per training file.
        seeds: selection seeds.
        entries: finished entries per part before selection.
        dropped: per part, the rows that became no example, by reason.
        files: file name to its record.
        notes: what the user should know.
        task_type: what the recipe says; empty where none does.
        metric: the recipe's own metric, where it names one.
        card: figures of the rows and columns, for tasks of one's own.
    """

    fingerprint: str
    fixes: bool
    source: dict[str, str]
    k: int
    seeds: tuple[int, ...]
    entries: dict[str, int]
    dropped: dict[str, Any]
    files: dict[str, FileRecord]
    notes: tuple[str, ...] = ()
    task_type: str = ""
    metric: str | None = None
    card: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "fingerprint": self.fingerprint,
            "fixes": self.fixes,
            "task_type": self.task_type,
            "metric": self.metric,
            "card": self.card,
            "source": self.source,
            "k": self.k,
            "seeds": list(self.seeds),
            "entries": self.entries,
            "dropped": self.dropped,
            "notes": list(self.notes),
            "files": {name: record.as_dict() for name, record in self.files.items()},
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RoleRecord:
        """From JSON."""
        return cls(
            fingerprint=value["fingerprint"],
            fixes=value["fixes"],
            source=value["source"],
            k=value["k"],
            seeds=tuple(value["seeds"]),
            entries=value["entries"],
            dropped=value["dropped"],
            files={name: FileRecord(**record) for name, record in value["files"].items()},
            notes=tuple(value["notes"]),
            task_type=value.get("task_type", ""),
            metric=value.get("metric"),
            card=value.get("card", {}),
        )


@dataclass(slots=True)
class Manifest:
    """The records of a folder, by task and role."""

    root: Path
    tasks: dict[str, dict[str, RoleRecord]] = field(default_factory=dict)

    def get(self, task: str, role: str) -> RoleRecord | None:
        """The record of a task in a role, if it was prepared."""
        return self.tasks.get(task, {}).get(role)

    def put(self, task: str, role: str, record: RoleRecord) -> None:
        """Add or replace a record, and save."""
        self.tasks.setdefault(task, {})[role] = record
        self.save()

    def save(self) -> None:
        """Write the file, whole."""
        tasks = {
            task: {role: record.as_dict() for role, record in roles.items()}
            for task, roles in sorted(self.tasks.items())
        }
        write_json(self.root / MANIFEST_NAME, sealed({"version": _VERSION, "tasks": tasks}), data_errors)

    def scoring(self, task: str) -> Scoring | None:
        """How the recipe of a task scores it; None for a task that was not prepared from one."""
        for record in self.tasks.get(task, {}).values():
            if record.task_type:
                return Scoring(TaskType(record.task_type), record.metric)
        return None

    def file(self, path: Path) -> FileRecord | None:
        """The record of a file below the root; None when it was not prepared here."""
        for record in self.tasks.get(path.parent.name, {}).values():
            if path.name in record.files:
                return record.files[path.name]
        return None

    def check(self, path: Path) -> None:
        """Hold a file to its record, if it has one.

        Raises:
            DataError: it was changed or damaged since it was prepared.
        """
        record = self.file(path)
        if record is not None and record_of(path).sha256 != record.sha256:
            raise DataError(
                str(path),
                f"is not as it was prepared: its sha256 differs from {MANIFEST_NAME}",
                "run stage=prepare, which makes it again; edited files belong into a folder of their own",
            )


def read_manifest(root: Path) -> Manifest:
    """The folder's manifest; an empty one if there is none.

    Raises:
        DataError: the file is broken or of another version.
    """
    path = root / MANIFEST_NAME
    if not path.is_file():
        return Manifest(root)
    try:
        content = parse_json(path.read_bytes())
        if content["version"] not in (_VERSION, _UNSEALED_VERSION):
            raise DataError(
                str(path), f"has version {content['version']}, not {_VERSION}", "prepare the data again"
            )
        if content["version"] == _VERSION or SEAL in content:
            content = unsealed(content)
        tasks = {
            task: {role: RoleRecord.from_dict(record) for role, record in roles.items()}
            for task, roles in content["tasks"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            str(path), f"is broken: {error}", "delete it and prepare again: whole files are kept"
        ) from error
    return Manifest(root, tasks)
