"""What the driver of cells asks of a family: ranking options, generating answers, tuning a prompt, or one of your own.

A family knows its cells, what decides each of them, and how their rows are answered. All else (the store, the run's
folder, several processes, progress, prompts, notes) is the driver's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metashot.engine.cells.prompts import CellPrompt
from metashot.engine.cells.results import FinishedCell, Result


@dataclass(frozen=True, slots=True)
class CellKey:
    """One (task, seed) with the fingerprint of all that decides its value, and its number of test examples."""

    task: str
    seed: int
    fingerprint: str
    n: int


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed together.

    Attributes:
        cells: what comes of it: one cell, or several where one training is tested on several tasks.
        rows: answers that it consists of: test examples, or 1 where it cannot be divided.
    """

    cells: tuple[CellKey, ...]
    rows: int

    @property
    def fingerprint(self) -> str:
        """The first cell's, which stands for all of them."""
        return self.cells[0].fingerprint


@dataclass(frozen=True, slots=True)
class Names:
    """What results are called; no name decides a value."""

    setting: str
    method: str
    model: str


@dataclass(slots=True)
class Cost:
    """What a run computed, and what computing every request alone would have taken.

    Attributes:
        computed_cells: cells that were computed.
        reused_cells: cells that the store had.
        tokens_computed: tokens through the model.
        tokens_naive: tokens of every request alone.
        tokens_generated: tokens of answers that the model wrote.
        route: how the last rows were scored (see `PrefixScorer.route`); None if none were.
        route_reason: why no faster way was taken; None for the fastest.
        self_check: the largest difference, in nats at any token, of a cell's scores to those of a few of its requests
            alone; None if none was compared. Of several processes, those of the first.
    """

    computed_cells: int = 0
    reused_cells: int = 0
    tokens_computed: int = 0
    tokens_naive: int = 0
    tokens_generated: int = 0
    route: str | None = None
    route_reason: str | None = None
    self_check: float | None = None

    def checked(self, difference: float) -> None:
        """Keep the largest difference of a cell to its requests alone."""
        self.self_check = max(difference, self.self_check or 0.0)


@dataclass(slots=True)
class Meter:
    """Where a family tells what computing takes.

    Attributes:
        at: called with (done, in all) now and then, in any unit.
        cost: tokens are added here.
    """

    at: Callable[[int, int], None]
    cost: Cost = field(default_factory=Cost)


class Family(ABC):
    """A kind of cells. Only `names`, `work`, `compute` and `finish` must be written."""

    names: Names

    @abstractmethod
    def work(self) -> Sequence[Work]:
        """All work of the run, in the order of its results; data are checked, no weights are loaded if it can be."""

    @abstractmethod
    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[Any]:
        """The answers of `rows`, in their order; plain JSON values where `pieces` gives more than one."""

    @abstractmethod
    def finish(self, work: Work, answers: Sequence[Any]) -> Sequence[FinishedCell]:
        """The cells of a work, in the order of `work.cells`, from the answers of all its rows."""

    def pieces(self, work: Work, least: int) -> Sequence[Sequence[int]]:
        """The rows of a work in pieces that are computed, and kept, one by one; a function of its arguments alone.

        Args:
            work: to divide.
            least: processes that wait for a piece; fewer pieces leave some of them idle.
        """
        del least
        return [range(work.rows)]

    def prompt(self, key: CellKey, result: Result) -> CellPrompt | None:
        """What a finished cell showed the model, for `prompts.jsonl`."""
        del key, result
        return None

    def notes(self, results: Sequence[Result]) -> Sequence[str]:
        """What the user should know of data and results, a sentence each."""
        del results
        return ()

    def close(self, cells: Sequence[FinishedCell], output: Path) -> Sequence[str]:
        """Files of the family's own in the run's folder; gives lines for the console."""
        del cells, output
        return ()
