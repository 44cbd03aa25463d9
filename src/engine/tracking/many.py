"""Several trackers as one, and the size limit of what they upload."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from metashot.engine.tracking.tracker import NoTracker, Status, Tracker

log = logging.getLogger(__name__)
MEGABYTE = 1_000_000


class ManyTrackers:
    """Passes everything on to each of its trackers, artifacts only of some kinds and sizes.

    Args:
        trackers: in the order in which they are told.
        kinds: kinds of artifacts that are passed on.
        limit_mb: artifacts above this size stay on disk, which is said.
    """

    def __init__(self, trackers: Sequence[Tracker], kinds: Collection[str], limit_mb: float) -> None:
        self._trackers = tuple(trackers)
        self._kinds = kinds
        self._limit = limit_mb * MEGABYTE

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics of one step."""
        for tracker in self._trackers:
            tracker.log(metrics, step)

    def summary(self, values: Mapping[str, object]) -> None:
        """Record final values."""
        for tracker in self._trackers:
            tracker.summary(values)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Record a table."""
        for tracker in self._trackers:
            tracker.table(name, columns, rows)

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Record a file or folder whose kind is wanted and whose size is within the limit."""
        if kind not in self._kinds or not path.exists():
            return
        size = size_of(path)
        if size > self._limit:
            log.warning(
                "tracking: %s has %.0f MB, above logger.artifact_limit_mb=%.0f; it stays in %s",
                name, size / MEGABYTE, self._limit / MEGABYTE, path,
            )  # fmt: skip
            return
        for tracker in self._trackers:
            tracker.artifact(name, kind, path)

    def uses(self, path: Path) -> None:
        """Record what this run builds on."""
        for tracker in self._trackers:
            tracker.uses(path)

    def finish(self, status: Status) -> None:
        """Close every tracker."""
        for tracker in self._trackers:
            tracker.finish(status)


def together(trackers: Sequence[Tracker], kinds: Collection[str], limit_mb: float) -> Tracker:
    """These trackers as one; one that records nothing where there are none."""
    return ManyTrackers(trackers, kinds, limit_mb) if trackers else NoTracker()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
