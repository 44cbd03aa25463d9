"""stage=compare: config keys, tasks with significance, flipped examples."""

import io
import json

import pytest
from rich.console import Console

from metashot.base.errors import OutputError
from metashot.engine.cells.config_difference import config_changes
from metashot.engine.cells.record import read_run
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.statistics import task_outcomes
from metashot.engine.report.compare import CompareSettings, compare_runs, flipped_table


@pytest.fixture
def two_runs(tmp_path, made, written):
    for name, skill in (("weak", 0.2), ("strong", 3.0)):
        cells = [made(task, seed, skill) for task in ("mood", "quiz") for seed in (1, 2)]
        folder = written(tmp_path / name, cells)
        config = {
            "k": 16,
            "prompt": {"max_length": 1024 if name == "weak" else 512},
            "logger": {"folder": name},
        }
        (folder / "run.json").write_text(
            json.dumps({"config": config, "overrides": ["k=16"], "status": "finished"})
        )
    return tmp_path / "strong", tmp_path / "weak"


def test_changed_keys_are_named_with_both_values():
    before = {"a": {"b": 1, "c": [1, 2]}, "gone": None, "out": {"dir": "x"}}
    after = {"a": {"b": 2, "c": [1, 2]}, "new": True, "out": {"dir": "y"}}
    assert [str(change) for change in config_changes(before, after, ["out"])] == [
        "a.b: 1 -> 2",
        "gone: null -> (absent)",
        "new: (absent) -> true",
    ]
    assert config_changes(before, before) == ()


def test_two_runs_side_by_side(two_runs, tmp_path):
    console = Console(file=io.StringIO(), width=140)
    outcome = compare_runs(CompareSettings(*two_runs, tmp_path / "out"), console)
    assert [str(change) for change in outcome.changes] == ["prompt.max_length: 512 -> 1024"]
    tables = {table.key: table for table in outcome.tables}
    (row,) = tables["overall"].rows
    assert row[1].value - row[2].value == pytest.approx(row[3].value)
    assert row[3].value > 10
    assert row[4].value < 0.01
    assert [cells[0].text for cells in tables["tasks"].rows] == ["mood", "quiz"]
    assert all(cells[4].value <= cells[5].value for cells in tables["tasks"].rows)
    assert (tmp_path / "out" / "compare.md").read_text().startswith("# Comparison of ")
    assert "prompt.max_length" in console.file.getvalue()


@pytest.mark.parametrize("metric", [metric for metric in Metric if not metric.graded])
def test_flipped_examples_by_hand(metric):
    """Example 0 is right in both; 1 only in the first (both seeds); 2 only in the second (seed 1)."""
    gold = ["a", "a", "b"]
    first = {"t": task_outcomes("t", metric, {s: (gold, ["a", "a", "a"]) for s in (1, 2)})}
    second = {"t": task_outcomes("t", metric, {1: (gold, ["a", "b", "b"]), 2: (gold, ["a", "b", "a"])})}
    said = tuple(
        {("t", seed, i): (gold[i], answer) for seed in (1, 2) for i, answer in enumerate(answers[seed])}
        for answers in ({1: "aaa", 2: "aaa"}, {1: "abb", 2: "aba"})
    )
    table = flipped_table(first, second, 10, said)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["t", "first", "a", "a", "b", "1", "2"],
        ["t", "second", "b", "a", "b", "2", "1"],
    ]
    assert table.note.startswith("2 answers are right in the first run only, 1 in the second only")
    assert len(flipped_table(first, second, 1, said).rows) == 1


def test_runs_without_a_common_task_are_refused(tmp_path, made, written):
    folders = [written(tmp_path / task, [made(task, 1, 1.0)]) for task in ("mood", "quiz")]
    for folder in folders:
        (folder / "run.json").write_text('{"config": {}, "overrides": []}')
    with pytest.raises(OutputError, match="no task in common"):
        compare_runs(CompareSettings(*folders, tmp_path), Console(file=io.StringIO()))


def test_a_folder_of_several_runs_is_refused(tmp_path, made, written, two_runs):
    written(tmp_path / "sweep" / "0", [made("mood", 1, 1.0)])
    written(tmp_path / "sweep" / "1", [made("mood", 1, 1.0, method="channel")])
    with pytest.raises(OutputError, match=r"holds 2 systems \(demo/direct, demo/channel\)"):
        compare_runs(CompareSettings(tmp_path / "sweep", two_runs[0], tmp_path), Console(file=io.StringIO()))


def test_a_run_is_read_back_for_a_rerun(two_runs, tmp_path):
    saved = read_run(two_runs[0])
    assert (saved.overrides, saved.status) == (("k=16",), "finished")
    with pytest.raises(OutputError, match="no such file"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        read_run(tmp_path)
