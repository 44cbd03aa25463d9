"""Is a prepared folder whole? Compares its files with its manifest and with what a setting needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metashot.base.console import PlainConsole
from metashot.base.files import FileRecord, record_of
from metashot.data.kshot import POOL_K, POOL_SEED, TARGET_K, TARGET_SEEDS
from metashot.data.rows.jsonl import file_name
from metashot.data.rows.manifest import MANIFEST_NAME, Manifest, read_manifest
from metashot.data.settings import Setting


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        file: path below the root.
        problem: missing, truncated, changed, unlisted, or short.
        detail: figures.
    """

    file: str
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What is wrong with a folder; nothing, if `findings` is empty."""

    root: Path
    n_files: int
    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether every file that the setting needs is there and as recorded."""
        return not self.findings

    def table(self) -> Table:
        """One line a fault."""
        table = Table(title=f"{self.root}: {self.n_files} files looked at", title_justify="left")
        for column in ("file", "problem", "detail"):
            table.add_column(column, overflow="fold")
        for finding in self.findings:
            table.add_row(finding.file, finding.problem, finding.detail)
        return table


def doctor(
    root: Path,
    setting: Setting,
    k: int = TARGET_K,
    seeds: tuple[int, ...] = TARGET_SEEDS,
    roles: tuple[str, ...] = ("train", "test"),
    pool_k: int = POOL_K,
    pool_seed: int = POOL_SEED,
    console: Console | None = None,
) -> DoctorReport:
    """Check a folder against its manifest and a setting, and print what is missing, truncated or changed.

    A folder without manifest (made by the original scripts, say) is checked for missing and empty files only.

    Raises:
        DataError: the manifest is broken.
    """
    manifest = read_manifest(root)
    has_manifest = (root / MANIFEST_NAME).is_file()
    expected = dict.fromkeys(_expected(setting, k, seeds, roles, pool_k, pool_seed))
    recorded = _recorded(manifest)
    findings = [
        finding for file in expected for finding in _examine(root, file, recorded.get(file), has_manifest)
    ]
    findings += [
        finding
        for file, record in recorded.items()
        if file not in expected and (root / file).exists()
        for finding in _examine(root, file, record, has_manifest)
    ]
    report = DoctorReport(root, len(expected), tuple(findings))
    shown = console or PlainConsole()
    shown.print(report.table() if findings else f"{root}: {len(expected)} files, all whole")
    return report


def _expected(
    setting: Setting, k: int, seeds: tuple[int, ...], roles: tuple[str, ...], pool_k: int, pool_seed: int
) -> Iterator[str]:
    if "train" in roles:
        for task in setting.train:
            yield f"{task}/{file_name(task, pool_k, pool_seed, 'train')}"
    if "test" in roles:
        for task in setting.test:
            for seed in seeds:
                for part in ("train", "test"):
                    yield f"{task}/{file_name(task, k, seed, part)}"


def _recorded(manifest: Manifest) -> dict[str, FileRecord]:
    return {
        f"{task}/{name}": file
        for task, roles in manifest.tasks.items()
        for record in roles.values()
        for name, file in record.files.items()
    }


def _examine(root: Path, file: str, record: FileRecord | None, has_manifest: bool) -> Iterator[Finding]:
    path = root / file
    if not path.is_file():
        yield Finding(file, "missing", "prepare the task")
        return
    if record is None:
        if has_manifest:
            yield Finding(file, "unlisted", "not made by stage=prepare: origin unknown")
        elif path.stat().st_size == 0:
            yield Finding(file, "truncated", "empty")
        return
    size = path.stat().st_size
    if size < record.bytes:
        yield Finding(file, "truncated", f"{size} of {record.bytes} bytes")
    elif record_of(path).sha256 != record.sha256:
        yield Finding(file, "changed", "its sha256 is not the recorded one")
