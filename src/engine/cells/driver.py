"""The one driver of cells: plan, store, compute, record, over the processes of a launch, for any family.

A cell is computed once and stored whole under its fingerprint. A work of several pieces keeps the answers of each
piece as soon as it has them, so that a kill loses the pieces in work. Every process takes the pieces that no other
holds: a lock stands for each, and the system frees those of a process that died. So nothing waits for a dead one, and
another command on the same store helps as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import Timeout

from metashot.engine.cells.family import CellKey, Cost, Family, Meter, Work
from metashot.engine.cells.folder import CellPlace, RunFolder
from metashot.engine.cells.prompts import PromptsFile
from metashot.engine.cells.results import FinishedCell, relabel
from metashot.engine.cells.store import ResultStore
from metashot.engine.training.ranks import from_first, leads, rank, sum_over_ranks, world_size


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `run_cells` made.

    Attributes:
        cells: finished cells in the family's order.
        cost: of all processes together.
        notes: what the user should know.
    """

    cells: tuple[FinishedCell, ...]
    cost: Cost
    notes: tuple[str, ...]


class Progress(Protocol):
    """Told about every cell; draws the progress bar and feeds the tracker."""

    def start(self, total: int, stored: int) -> None:
        """Called once with the number of cells, and how many of them are stored already."""
        ...

    def tokens(self, cell: CellKey, done: int, total: int) -> None:
        """Called now and then inside a cell."""
        ...

    def finished(self, cell: FinishedCell, *, computed: bool) -> None:
        """Called for each cell when its result is on disk."""
        ...


def run_cells(
    family: Family,
    results_root: Path,
    output: Path,
    progress: Progress,
    expect: Callable[[Mapping[CellPlace, str]], None] | None = None,
) -> Outcome:
    """Compute every cell that the store lacks, and write all of them to the run's folder.

    Args:
        family: whose cells.
        results_root: the store.
        output: the run's folder; the first process of a launch writes it.
        progress: told about every cell.
        expect: told the fingerprint of every cell, by task and seed, before the first one is computed.

    Raises:
        OutputError: the store or the run's folder cannot be written; and what the family raises.
    """
    works = family.work()
    driver = _Driver(family, ResultStore(results_root), progress)
    missing = [place for place, work in enumerate(works) if driver.stored(work) is None]
    if missing:
        driver.store.check_writable()
    expected = {(key.task, key.seed): key.fingerprint for work in works for key in work.cells}
    if expect is not None:
        expect(expected)
    folder = _Written(output, expected, family, progress) if leads() else None
    total = sum(len(work.cells) for work in works)
    progress.start(total, total - sum(len(works[place].cells) for place in missing))
    driver.share([works[place] for place in from_first(missing)])
    cells: list[FinishedCell] = []
    for work in works:
        found, computed = driver.finished(work)
        named = [
            relabel(cell, **asdict(family.names), seed=key.seed)
            for key, cell in zip(work.cells, found, strict=True)
        ]
        cells += named
        if folder is not None:
            folder.add(work.cells, named, computed=computed)
    if folder is not None:
        folder.close()
    cost = _over_ranks(driver.cost, total)
    return Outcome(tuple(cells), cost, tuple(family.notes([cell.result for cell in cells])))


@dataclass(slots=True)
class _Driver:
    family: Family
    store: ResultStore
    progress: Progress
    cost: Cost = field(default_factory=Cost)
    least: dict[str, int] = field(default_factory=dict[str, int])
    """How many processes wait for a piece of a work, by fingerprint; 1 where nothing stands."""
    known: dict[str, FinishedCell] = field(default_factory=dict[str, FinishedCell])

    def stored(self, work: Work) -> list[FinishedCell] | None:
        """Its cells, where the store has all of them."""
        for key in work.cells:
            if key.fingerprint not in self.known:
                cell = self.store.get(key.fingerprint)
                if cell is None:
                    return None
                self.known[key.fingerprint] = cell
        return [self.known[key.fingerprint] for key in work.cells]

    def share(self, works: Sequence[Work]) -> None:
        """This process' part of what is missing: whole works while there is one for each process, else pieces.

        Every process begins with works of its own and goes on with what the others have not begun.
        """
        ranks, own = world_size(), rank()
        if ranks == 1:
            return
        whole = len(works) - len(works) % ranks
        self.least = {work.fingerprint: ranks for work in works[whole:]}
        for turn in range(ranks):
            for work in works[(own + turn) % ranks :: ranks]:
                with suppress(Timeout):
                    self._help(work, own / ranks)

    def _help(self, work: Work, start: float) -> None:
        """The pieces that nobody holds, from a place (0..1) of this process' own on."""
        if self.stored(work) is not None:
            return
        pieces = self._pieces(work)
        first = int(start * len(pieces))
        if len(pieces) > 1:
            for rows in (*pieces[first:], *pieces[:first]):
                with suppress(Timeout):
                    self._piece(work, rows, wait=0)
            if len(self.store.rows(work.fingerprint)) < work.rows:
                return
        self.finished(work, wait=0)

    def finished(self, work: Work, wait: float = -1) -> tuple[list[FinishedCell], bool]:
        """Its cells from the store, or computed and put there; and whether they were computed here.

        Raises:
            Timeout: another process has it, after `wait` seconds (below 0: for ever).
        """
        if (cells := self.stored(work)) is not None:
            return cells, False
        with self.store.lock(work.fingerprint, wait):
            if (cells := self.stored(work)) is not None:
                return cells, False
            cells = list(self.family.finish(work, self._answers(work)))
            for cell in cells:
                self.store.put(cell)
                self.known[cell.result.fingerprint] = cell
            self.store.drop_rows(work.fingerprint)
            self.cost.computed_cells += len(cells)
            return cells, True

    def _answers(self, work: Work) -> list[Any]:
        """One for each row, in order; those of a single piece go past the store."""
        pieces = self._pieces(work)
        if len(pieces) == 1 and not self.store.rows(work.fingerprint):
            answers = dict(zip(pieces[0], self._computed(work, pieces[0], 0), strict=True))
        else:
            for rows in pieces:
                self._piece(work, rows, wait=-1)
            answers = self.store.rows(work.fingerprint)
        return [answers[row] for row in range(work.rows)]

    def _piece(self, work: Work, rows: Sequence[int], wait: float) -> None:
        """Have the answers of `rows` in the store; rows that were kept under other pieces are not computed again."""
        with self.store.rows_lock(work.fingerprint, rows, wait):
            if self.store.get(work.fingerprint) is not None:
                return
            kept = self.store.rows(work.fingerprint)
            left = [row for row in rows if row not in kept]
            if left:
                answers = self._computed(work, left, len(kept))
                self.store.put_rows(work.fingerprint, dict(zip(left, answers, strict=True)))

    def _computed(self, work: Work, rows: Sequence[int], done: int) -> list[Any]:
        def at(part: int, whole: int) -> None:
            rows_done = done + len(rows) * part / max(whole, 1)
            self.progress.tokens(work.cells[0], int(1000 * rows_done), 1000 * work.rows)

        return list(self.family.compute(work, rows, Meter(at, self.cost)))

    def _pieces(self, work: Work) -> list[Sequence[int]]:
        return list(self.family.pieces(work, self.least.get(work.fingerprint, 1)))


class _Written:
    """The run's folder, told whole batches: the cells that were stored already between two computed ones."""

    def __init__(
        self, output: Path, expected: Mapping[CellPlace, str], family: Family, progress: Progress
    ) -> None:
        self._folder, self._prompts = RunFolder(output, expected), PromptsFile(output)
        self._family, self._progress = family, progress
        self._waiting: list[tuple[CellKey, FinishedCell, bool]] = []

    def add(self, keys: Sequence[CellKey], cells: Sequence[FinishedCell], *, computed: bool) -> None:
        self._waiting += [(key, cell, computed) for key, cell in zip(keys, cells, strict=True)]
        if computed:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._folder.check_complete()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for _, cell, _ in waiting:
            self._folder.add(cell)
        prompts = [self._family.prompt(key, cell.result) for key, cell, _ in waiting]
        self._prompts.add([prompt for prompt in prompts if prompt is not None])
        for _, cell, computed in waiting:
            self._progress.finished(cell, computed=computed)


def _over_ranks(cost: Cost, cells: int) -> Cost:
    """What all processes together computed."""
    counts = (cost.computed_cells, cost.tokens_computed, cost.tokens_naive, cost.tokens_generated)
    computed, tokens, naive, generated = map(int, sum_over_ranks([float(count) for count in counts], "cpu"))
    return replace(
        cost,
        computed_cells=computed,
        reused_cells=cells - computed,
        tokens_computed=tokens,
        tokens_naive=naive,
        tokens_generated=generated,
    )
