"""The driver of cells, with a family that counts what it computes: pieces kept, nothing twice, nothing lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from metashot.engine.cells.driver import Outcome, run_cells
from metashot.engine.cells.family import CellKey, Family, Meter, Names, Work
from metashot.engine.cells.prompts import CellPrompt, read_prompts
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.cells.store import ResultStore


@dataclass
class Squares(Family):
    """Row r of task t is answered with r squared; a file notes each row that is computed."""

    computed: Path
    sizes: dict[str, int]
    piece: int = 3
    dies_at: int | None = None
    pause: float = 0.0
    names: Names = field(default_factory=lambda: Names("arithmetic", "squares", "none"))

    def work(self) -> Sequence[Work]:
        return [Work((CellKey(task, 0, _fingerprint(task), n),), n) for task, n in self.sizes.items()]

    def pieces(self, work: Work, least: int) -> Sequence[Sequence[int]]:
        size = -(-work.rows // least) if least > 1 else self.piece
        return [range(first, min(first + size, work.rows)) for first in range(0, work.rows, size)]

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[Any]:
        for done, row in enumerate(rows):
            if row == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL) if self.pause else self._fail()
            time.sleep(self.pause)
            meter.at(done + 1, len(rows))
        with self.computed.open("a") as stream:
            stream.writelines(f"{work.cells[0].task} {row}\n" for row in rows)
        meter.cost.tokens_computed += len(rows)
        return [row * row for row in rows]

    def _fail(self) -> None:
        raise KeyboardInterrupt

    def finish(self, work: Work, answers: Sequence[Any]) -> Sequence[FinishedCell]:
        (key,) = work.cells
        predictions = tuple(
            Prediction(key.task, 0, row, "1", str(answer), (), (), (), (), (), (), (), (), key.fingerprint)
            for row, answer in enumerate(answers)
        )
        value = sum(answers) / 1000
        return [
            FinishedCell(
                Result("s", "m", "m", key.task, 0, 2, "accuracy", value, key.n, key.fingerprint), predictions
            )
        ]

    def prompt(self, key: CellKey, result: Result) -> CellPrompt:
        return CellPrompt(key.task, key.seed, f"{result.value}", ("a",))

    def close(self, cells: Sequence[FinishedCell], output: Path) -> Sequence[str]:
        return [f"{len(cells)} cells"]


def _fingerprint(task: str) -> str:
    return task.encode().hex().ljust(64, "0")


class Moves:
    """Progress as it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, total: int, stored: int) -> None:
        self.told.append((total, stored))

    def tokens(self, cell: CellKey, done: int, total: int) -> None:
        self.told.append(round(done / total, 2))

    def finished(self, cell: FinishedCell, *, computed: bool) -> None:
        self.told.append((cell.result.task, computed))


def run(folder: Path, name: str = "run", **changes: Any) -> tuple[Outcome, Moves]:
    moves = Moves()
    given: dict[str, Any] = {"computed": folder / "computed", "sizes": {"a": 7, "b": 4}} | changes
    return run_cells(Squares(**given), folder / "root", folder / name, moves), moves


def computed(folder: Path) -> list[str]:
    return (folder / "computed").read_text().splitlines()


ALL = [*(f"a {row}" for row in range(7)), *(f"b {row}" for row in range(4))]


def test_a_run_from_nothing_and_again_from_the_store(tmp_path):
    outcome, moves = run(tmp_path)
    assert [[p.prediction for p in cell.predictions] for cell in outcome.cells] == [
        ["0", "1", "4", "9", "16", "25", "36"], ["0", "1", "4", "9"],
    ]  # fmt: skip
    assert {cell.result.setting for cell in outcome.cells} == {"arithmetic"}
    assert computed(tmp_path) == ALL
    # Of seven rows: 3 pieces of 3, 3 and 1, each told row by row.
    assert moves.told[:8] == [(2, 0), 0.14, 0.29, 0.43, 0.57, 0.71, 0.86, 1.0]
    assert moves.told[8] == ("a", True)
    assert not list((tmp_path / "root" / "rows").iterdir())
    assert {place: cell.demonstrations for place, cell in read_prompts(tmp_path / "run").items()} == {
        ("a", 0): "0.091", ("b", 0): "0.014",
    }  # fmt: skip
    again, moves = run(tmp_path, "again")
    assert again.cells == outcome.cells
    assert (again.cost.computed_cells, again.cost.reused_cells) == (0, 2)
    assert moves.told == [(2, 2), ("a", False), ("b", False)]
    for file in ("results.jsonl", "predictions.jsonl", "prompts.jsonl"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()


@pytest.mark.parametrize("dies_at", range(7))
@pytest.mark.parametrize("later", [1, 2, 3, 7])
def test_a_stopped_run_keeps_its_pieces_whatever_the_pieces_of_the_next(tmp_path, dies_at, later):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dies_at=dies_at, sizes={"a": 7})
    kept = 3 * (dies_at // 3)
    assert len(ResultStore(tmp_path / "root").rows(_fingerprint("a"))) == kept
    outcome, _ = run(tmp_path, sizes={"a": 7}, piece=later)
    assert computed(tmp_path) == ALL[:7]
    assert outcome.cost.tokens_computed == 7 - kept
    assert [p.prediction for p in outcome.cells[0].predictions] == [str(n * n) for n in range(7)]


def test_damaged_rows_are_computed_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dies_at=6, sizes={"a": 7})
    first, second = sorted((tmp_path / "root" / "rows" / _fingerprint("a")).glob("*.json"))
    first.write_text(first.read_text().replace("4", "5"))
    second.write_bytes(second.read_bytes()[:-20])
    outcome, _ = run(tmp_path, sizes={"a": 7})
    assert outcome.cost.tokens_computed == 7
    assert [p.prediction for p in outcome.cells[0].predictions] == [str(n * n) for n in range(7)]


def _process(folder: str, name: str, dies_at: int | None) -> None:
    run(Path(folder), name, piece=2, sizes={"a": 7}, dies_at=dies_at, pause=0.05)


def test_what_a_killed_process_held_is_free_for_another(tmp_path):
    """It dies inside the third piece (rows 4 and 5), with its locks held; the other waits for nothing."""
    spawn = multiprocessing.get_context("fork")
    first = spawn.Process(target=_process, args=(str(tmp_path), "one", 4))
    first.start()
    first.join(60)
    assert first.exitcode == -signal.SIGKILL
    assert len(computed(tmp_path)) == 4
    outcome, _ = run(tmp_path, piece=2, sizes={"a": 7})
    assert computed(tmp_path) == ALL[:7]
    assert outcome.cost.computed_cells == 1


def test_two_commands_on_one_store_compute_every_row_once(tmp_path):
    spawn = multiprocessing.get_context("fork")
    both = [spawn.Process(target=_process, args=(str(tmp_path), name, None)) for name in ("one", "two")]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(computed(tmp_path)) == ALL[:7]
    assert (tmp_path / "one" / "results.jsonl").read_bytes() == (
        tmp_path / "two" / "results.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("own", [0, 1])
def test_processes_of_a_launch_begin_with_works_of_their_own_and_leave_what_is_held(
    tmp_path, monkeypatch, own
):
    """Of three works and two processes: the first takes 0 and 2, the second 1; work 2 comes in two pieces."""
    from metashot.engine.cells import driver

    monkeypatch.setattr(driver, "world_size", lambda: 2)
    monkeypatch.setattr(driver, "rank", lambda: own)
    sizes = {"a": 2, "b": 2, "c": 4}
    held = FileLock(tmp_path / "root" / "rows" / _fingerprint("c") / "2-from-2-to-3.lock")
    Path(held.lock_file).parent.mkdir(parents=True)
    one = driver._Driver(  # pyright: ignore[reportPrivateUsage]
        Squares(tmp_path / "computed", sizes), ResultStore(tmp_path / "root"), Moves()
    )
    with held:
        one.share(one.family.work())
    order = (
        ["a 0", "a 1", "c 0", "c 1", "b 0", "b 1"] if own == 0 else ["b 0", "b 1", "a 0", "a 1", "c 0", "c 1"]
    )
    assert computed(tmp_path) == order
    assert one.stored(one.family.work()[2]) is None
