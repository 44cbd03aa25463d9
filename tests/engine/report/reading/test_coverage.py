"""Missing seeds and tasks are counted, marked everywhere, and never averaged in silence."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from metashot.engine.report.build import ReportSettings, write_report
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.pair_tests import leaders
from metashot.engine.report.systems.published import Verdict, compare_with_published
from metashot.engine.report.systems.results import collect_systems
from metashot.engine.sweeps.ledger import Job, Ledger

SEEDS = (100, 13, 21)
TASKS = ("mood", "quiz", "weather")
DRAWS = dict(draws=50, level=0.95, seed=0)


@pytest.fixture
def gap(tmp_path, made, written):
    """Three methods with three seeds; `channel`, the highest, lacks seed 21 of `quiz`."""
    for method, skill in (("direct", 1.0), ("pmi", 1.5), ("channel", 2.0)):
        cells = [
            made(task, seed, skill, method=method)
            for task in TASKS
            for seed in SEEDS
            if (method, task, seed) != ("channel", "quiz", 21)
        ]
        written(tmp_path / method, cells, {"k": 16, "method": {"name": method}})
    return tmp_path


def answers_of(root):
    rows, problems = collect_systems(read_outputs([root]), lambda setting: (), **DRAWS)
    return {row.system.method: row for row in rows}, problems


def report_of(root, **keys):
    console = Console(file=io.StringIO(), width=200)
    settings = ReportSettings((root,), root / "report", draws=50, permutations=200, **keys)
    return write_report(settings, console), console.file.getvalue()


def test_a_missing_seed_is_counted_by_tasks_seeds_and_examples(gap):
    answers, problems = answers_of(gap)
    assert answers["direct"].coverage.complete
    lacking = answers["channel"].coverage
    assert (lacking.cells, lacking.expected_cells) == (8, 9)
    assert (lacking.tasks, lacking.seeds, lacking.expected_seeds) == (3, 2, 3)
    assert (lacking.examples, lacking.expected_examples) == (120, 120)
    assert lacking.gaps == (("quiz", (21,)),)
    assert problems == [
        "demo, Channel In-context, k=16 (tiny): 8 of 9 cells; quiz lacks seed 21. "
        "Its figures are marked and never the best."
    ]


def test_worst_is_not_shown_with_fewer_seeds_than_the_others(gap):
    answers, _ = answers_of(gap)
    assert answers["channel"].worst is None
    assert answers["direct"].worst is not None


def test_seeds_that_a_run_asked_for_are_expected_of_it(tmp_path, made, written):
    """A run that was killed after its first seed, with nothing beside it."""
    written(tmp_path / "run", [made("mood", 100, 1.0)], {"k": 16, "seeds": list(SEEDS)})
    answers, _ = answers_of(tmp_path)
    assert answers["direct"].coverage.mark == " †1/3"


def test_tasks_that_a_run_asked_for_are_expected_of_it(tmp_path, made, written):
    config = {"k": 16, "seeds": [100], "data": {"tasks": ["mood", "quiz"]}}
    written(tmp_path / "run", [made("mood", 100, 1.0)], config)
    answers, _ = answers_of(tmp_path)
    assert answers["direct"].coverage.gaps == (("quiz", ()),)


def test_fewer_test_examples_are_marked(tmp_path, made, written):
    written(tmp_path / "a", [made("mood", 13, 1.0)])
    written(tmp_path / "b", [made("mood", 13, 1.0, method="pmi", n=30)])
    answers, _ = answers_of(tmp_path)
    assert answers["direct"].coverage.complete
    assert answers["pmi"].coverage.mark == " †30/40 examples"


def test_one_seed_is_all_of_a_method_without_demonstrations(demo_runs):
    rows, _ = collect_systems(read_outputs([demo_runs]), lambda setting: (), **DRAWS)
    zero = next(row for row in rows if row.system.method == "zero")
    assert zero.coverage.complete
    assert zero.coverage.expected_seeds == 1


def test_every_table_plot_and_test_says_that_cells_are_missing(gap):
    outcome, printed = report_of(gap)
    tables = {table.key: table for table in outcome.tables}
    assert {"results", "tests", "sensitivity", "rescoring", "tasks-demo"} <= set(tables)
    del tables["runs"]  # it holds no figure
    for key, table in tables.items():
        rows = [" ".join(cell.text for cell in row) for row in table.rows]
        marked = [row for row in rows if "†" in row]
        assert marked, key
        assert "†" in table.note, key
        if key in ("results", "sensitivity", "rescoring"):
            assert all("Channel" in row for row in marked), key
    assert {row[7].text for row in tables["tests"].rows if "Channel" in row[1].text} == {"†8/9"}
    for plot in outcome.plots:
        assert "†8/9" in plot.alternative, plot.key
    assert "8 of 9 cells" in printed


def test_bold_is_the_best_and_what_is_not_significantly_below(tmp_path, made, written):
    """`pmi` answers as `direct` does but for noise; `channel` is far below both."""
    for method, skill in (("direct", 2.0), ("pmi", 2.0), ("channel", 0.0)):
        cells = [made(task, seed, skill, method=method) for task in TASKS for seed in SEEDS]
        written(tmp_path / method, cells)
    rows, _ = collect_systems(read_outputs([tmp_path]), lambda setting: (), **DRAWS)
    assert {system.method for system in leaders(rows, 500, 0, 0.05)} == {"direct", "pmi"}


def test_an_incomplete_row_is_never_bold(gap):
    rows, _ = collect_systems(read_outputs([gap]), lambda setting: (), **DRAWS)
    assert "channel" not in {system.method for system in leaders(rows, 200, 0, 0.05)}


def test_a_missing_seed_makes_no_verdict_against_the_paper(tmp_path, made, written):
    cells = [
        made(task, seed, 1.0, setting="hr_to_lr", model="gpt2_large")
        for task in ("mood", "quiz")
        for seed in SEEDS
        if (task, seed) != ("quiz", 21)
    ]
    written(tmp_path, cells, {"k": 16, "seeds": list(SEEDS)})
    rows, _ = collect_systems(read_outputs([tmp_path]), lambda setting: ("mood", "quiz"), **DRAWS)
    compared = compare_with_published(rows, lambda setting, scope: ("mood", "quiz"), **DRAWS)
    assert {c.verdict for c in compared if c.ours} == {Verdict.INCOMPLETE}


def test_a_killed_sweep_says_which_jobs_are_left(tmp_path, made, written):
    ledger = Ledger(tmp_path)
    first, second = ledger.plan([Job(("k=4",), {"k": 4}), Job(("k=8",), {"k": 8})])
    ledger.start(first.key, tmp_path / "0")
    ledger.finish(first.key, 50.0)
    ledger.start(second.key, tmp_path / "1")
    written(tmp_path / "0", [made("mood", 13, 1.0)])
    (problem,) = read_outputs([tmp_path]).problems
    assert "1 of 2 jobs of this sweep are not finished: job 1 (running)" in problem


def test_the_path_is_printed_whatever_the_formats(gap):
    outcome, printed = report_of(gap, formats=("html",))
    assert printed.strip() == f"written: {outcome.files[0]}"
    assert json.dumps(str(outcome.files[0])).endswith('report.html"')


def test_demonstrations_that_did_not_fit_are_marked_wherever_the_figure_stands(tmp_path, made, written):
    """k=16 of which 3.2 were shown in the mean over two cells, k=4 of which all were."""
    for k, shown in ((4, (4.0, 4.0)), (16, (4.0, 2.4))):
        cells = [made("mood", seed, 1.0, k=k) for seed in (1, 2)]
        counted = [
            (replace(result, shown_mean=mean, shown_least=int(mean)), predictions)
            for (result, predictions), mean in zip(cells, shown, strict=True)
        ]
        written(tmp_path / str(k), counted, {"k": k, "method": {"name": "direct"}})
    rows, _ = collect_systems(read_outputs([tmp_path]), lambda setting: (), **DRAWS)
    assert {row.system.k: row.shown for row in rows} == {4: None, 16: (pytest.approx(3.2), 2)}
    outcome, _ = report_of(tmp_path)
    tables = {table.key: table for table in outcome.tables}
    for key in ("results", "sensitivity", "rescoring", "shots", "tasks-demo"):
        cells = [*tables[key].columns, *(cell.text for row in tables[key].rows for cell in row)]
        assert any("‡3.2" in cell for cell in cells), key
        assert "the prompts held only a of the k demonstrations" in tables[key].note, key
    (plot,) = [plot for plot in outcome.plots if plot.key == "shots"]
    assert "(3.2 shown)" in plot.svg
    assert "k=16" in plot.alternative
    assert "‡3.2/16 shown" in plot.alternative
