"""The store and the run folder: nothing twice, nothing lost, nothing mistaken."""

import json
import multiprocessing

import pytest

from metashot.base.errors import OutputError
from metashot.engine.cells.folder import RunFolder
from metashot.engine.cells.results import (
    FinishedCell,
    Prediction,
    Result,
    prediction_from_row,
    relabel,
    result_from_row,
)
from metashot.engine.cells.store import ResultStore


def cell(fingerprint="ab" * 32, task="t", seed=100, n=3):
    predictions = tuple(
        Prediction(task, seed, i, "a", "a", ("a", "b"), (1.0, 2.0), (2.0, 4.0), (2, 2), (1, 1), (1, 1), ((1.0, 1.0),), ((2, 2),), fingerprint)
        for i in range(n)
    )  # fmt: skip
    return FinishedCell(
        Result("s", "direct", "m", task, seed, 4, "accuracy", 1.0, n, fingerprint), predictions
    )


def test_a_cell_round_trips(tmp_path):
    store = ResultStore(tmp_path)
    assert store.get("ab" * 32) is None
    store.put(cell())
    assert store.get("ab" * 32) == cell()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[9:], lambda b: b"", lambda b: b.replace(b"nll", b"nil")]
)
def test_a_damaged_cell_is_missing_and_no_error(tmp_path, damage):
    store = ResultStore(tmp_path)
    store.put(cell())
    (path,) = (tmp_path / "cells").rglob("*.jsonl")
    path.write_bytes(damage(path.read_bytes()))
    assert store.get("ab" * 32) is None


def test_lines_round_trip_through_the_run_folder(tmp_path):
    folder = RunFolder(tmp_path)
    folder.add(cell())
    folder.add(cell())
    (result,) = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert result_from_row(result) == cell().result
    assert tuple(map(prediction_from_row, rows)) == cell().predictions


def test_a_stored_cell_takes_the_names_of_the_run(tmp_path):
    renamed = relabel(cell(), setting="other", method="mine", model="big", seed=13)
    assert (renamed.result.setting, renamed.result.method, renamed.result.model) == ("other", "mine", "big")
    assert {renamed.result.seed, *(row.seed for row in renamed.predictions)} == {13}
    assert renamed.result.value == cell().result.value


def test_another_format_is_refused():
    with pytest.raises(OutputError, match="format 99, this version reads 2"):
        result_from_row({"format": 99})


def write_cells(root, numbers):
    """One of several processes on one root."""
    store, folder = ResultStore(root), RunFolder(root / "run")
    for number in numbers:
        fingerprint = f"{number:064d}"
        with store.lock(fingerprint):
            store.put(cell(fingerprint, task=f"t{number}"))
        folder.add(cell(fingerprint, task=f"t{number}"))


def test_processes_on_one_root_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    ranges = [range(0, 12), range(6, 18), range(12, 24)]
    processes = [context.Process(target=write_cells, args=(tmp_path, numbers)) for numbers in ranges]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    tasks = sorted(result.task for result in RunFolder(tmp_path / "run").results())
    assert tasks == sorted(f"t{number}" for number in range(24))
    assert len((tmp_path / "run" / "predictions.jsonl").read_text().splitlines()) == 24 * 3
