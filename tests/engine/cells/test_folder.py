"""A run's folder holds one current row for each task and seed, and gives back what was damaged."""

import json
import random
import shutil
from dataclasses import asdict, replace

import pytest

from metashot.base.errors import OutputError
from metashot.engine.cells import folder as folder_module
from metashot.engine.cells.folder import SUPERSEDED_FILE, RunFolder, read_contents
from metashot.engine.cells.results import (
    PREDICTIONS_FILE,
    REQUIRED,
    RESULTS_FILE,
    FinishedCell,
    Prediction,
    Result,
    checked_row,
)
from metashot.engine.cells.store import ResultStore


def cell(task="t", seed=100, salt="a", value=1.0):
    fingerprint = f"{task}{seed}{salt}"
    predictions = tuple(
        Prediction(task, seed, i, "a", "a", ("a", "b"), (1.5, 2.5), (2.0, 4.0), (2, 2), (1, 1), (1, 1), (), (), fingerprint)
        for i in range(3)
    )  # fmt: skip
    return FinishedCell(
        Result("s", "direct", "m", task, seed, 4, "accuracy", value, 3, fingerprint), predictions
    )


CELLS = [cell(task, seed) for task in ("x", "y") for seed in (13, 21)]
EXPECTED = {(c.result.task, c.result.seed): c.result.fingerprint for c in CELLS}


def filled(path, cells=tuple(CELLS), expected=EXPECTED):
    folder = RunFolder(path, expected)
    for one in cells:
        folder.add(one)
    return folder


def content(path):
    return {
        name: sorted((path / name).read_bytes().splitlines()) for name in (RESULTS_FILE, PREDICTIONS_FILE)
    }


def test_a_result_of_the_same_task_and_seed_takes_the_place_of_the_old_one(tmp_path):
    filled(tmp_path)
    new = cell("x", 21, "changed weights", 0.5)
    RunFolder(tmp_path).add(new)
    blocks = read_contents(tmp_path).blocks
    assert [block.place for block in blocks] == [("x", 13), ("y", 13), ("y", 21), ("x", 21)]
    assert blocks[-1].row["value"] == 0.5
    assert not any(block.fault for block in blocks)
    (old,) = [json.loads(line) for line in (tmp_path / SUPERSEDED_FILE).read_text().splitlines()]
    assert (old["fingerprint"], old["value"]) == (CELLS[1].result.fingerprint, 1.0)


def test_rows_of_another_command_leave_a_reused_folder(tmp_path):
    filled(tmp_path)
    folder = RunFolder(tmp_path, {("x", 13): CELLS[0].result.fingerprint})
    assert [result.task for result in folder.results()] == ["x"]
    folder.check_complete()


def test_every_flip_and_cut_is_mended_by_the_next_run(tmp_path):
    filled(tmp_path / "whole")
    whole = content(tmp_path / "whole")
    draw = random.Random(0)
    for number in range(60):
        path = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", path)
        file = path / draw.choice([RESULTS_FILE, PREDICTIONS_FILE])
        damaged = bytearray(file.read_bytes())
        place = draw.randrange(len(damaged))
        if number % 2:
            damaged[place] ^= 1 << draw.randrange(8)
        else:
            del damaged[place:]
        file.write_bytes(damaged)
        filled(path).check_complete()
        assert content(path) == whole, (number, file.name, place)
        shutil.rmtree(path)


def test_a_folder_that_vanishes_under_the_run_is_an_error(tmp_path):
    folder = filled(tmp_path / "run", CELLS[:2])
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OutputError, match=r"cannot write: .*gone"):
        folder.add(CELLS[2])
    with pytest.raises(OutputError, match="4 of 4 results are gone again"):
        folder.check_complete()


def test_a_finished_folder_that_has_lost_a_row_is_an_error(tmp_path):
    folder = filled(tmp_path)
    lines = (tmp_path / RESULTS_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / RESULTS_FILE).write_bytes(b"".join(lines[1:]))
    with pytest.raises(OutputError, match=r"1 of 4 results are gone again \(the first: task x, seed 13\)"):
        folder.check_complete()


def test_no_flip_or_cut_of_a_stored_cell_is_read(tmp_path):
    store = ResultStore(tmp_path)
    store.put(CELLS[0])
    (path,) = tmp_path.rglob("*.jsonl")
    whole = path.read_bytes()
    draw = random.Random(1)
    for number in range(400):
        damaged = bytearray(whole)
        place = draw.randrange(len(damaged))
        if number % 2:
            damaged[place] ^= 1 << draw.randrange(8)
        else:
            del damaged[place:]
        path.write_bytes(damaged)
        found = store.get(CELLS[0].result.fingerprint)
        assert found is None or found == CELLS[0], (number, place)
    path.write_bytes(whole)
    assert store.get(CELLS[0].result.fingerprint) == CELLS[0]
    assert store.get(replace(CELLS[0].result, fingerprint="other").fingerprint) is None


def test_rows_of_metashot_0_1_are_read_as_they_were_written(tmp_path):
    """They end with `fingerprint` and `format`: no digests, nothing about cut inputs."""
    rows = [{**{name: getattr(c.result, name) for name in REQUIRED}, "format": 1} for c in CELLS]
    predictions = [asdict(p) for c in CELLS for p in c.predictions]
    for name, lines in ((RESULTS_FILE, rows), (PREDICTIONS_FILE, predictions)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    contents = read_contents(tmp_path)
    assert [block.place for block in contents.blocks] == list(EXPECTED)
    assert not any(block.fault for block in contents.blocks)
    assert RunFolder(tmp_path).results() == [replace(c.result, format=1) for c in CELLS]


def test_adding_a_cell_reads_what_is_new_and_not_what_stands_there(tmp_path, monkeypatch):
    """Lines that are parsed while n cells are added: n, not n * n / 2."""
    parsed = []
    monkeypatch.setattr(folder_module, "checked_row", lambda line: parsed.append(line) or checked_row(line))
    folder = RunFolder(tmp_path)
    for seed in range(50):
        folder.add(cell(seed=seed))
    assert len(parsed) <= 50
    assert len(folder.results()) == 50


def test_cells_that_another_process_adds_meanwhile_are_seen(tmp_path):
    """Also when it replaces one, and so writes the files anew."""
    ours, theirs = RunFolder(tmp_path), RunFolder(tmp_path)
    ours.add(cell(seed=1))
    theirs.add(cell(seed=2))
    ours.add(cell(seed=2))
    theirs.add(cell(seed=1, salt="changed"))
    ours.add(cell(seed=1, salt="changed"))
    ours.add(cell(seed=3))
    assert sorted((r.seed, r.fingerprint) for r in ours.results()) == [
        (1, "t1changed"),
        (2, "t2a"),
        (3, "t3a"),
    ]
    assert len((tmp_path / RESULTS_FILE).read_text().splitlines()) == 3
