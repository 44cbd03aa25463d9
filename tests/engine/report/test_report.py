"""The report as a whole: figures against direct computation, and every format read back."""

import csv
import io
import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby

import numpy as np
import pytest
from rich.console import Console

from metashot.base.errors import ConfigError
from metashot.base.json_text import sealed
from metashot.engine.metrics.classification import Metric, score
from metashot.engine.metrics.ranking import OptionCounts, best_option, option_scores
from metashot.engine.metrics.rules import NORMALIZATIONS, Calibration, Normalization
from metashot.engine.report.build import ReportSettings, write_report
from metashot.engine.report.formats.latex import latex
from metashot.engine.report.formats.text import comma_separated, markdown
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.pair_tests import compare_pairs, differ_in_one_respect
from metashot.engine.report.systems.published import Verdict, compare_with_published, published_cells
from metashot.engine.report.systems.rescoring import rescore
from metashot.engine.report.systems.results import System, collect_systems, incomplete_note
from metashot.engine.report.tables.table import Table, TableCell, names, without_constant_columns

NO_TARGETS = dict(draws=200, level=0.95, seed=0)


def answers_of(root):
    return collect_systems(read_outputs([root]), lambda setting: (), **NO_TARGETS)[0]


@pytest.fixture
def report(demo_runs, tmp_path):
    console = Console(file=io.StringIO(), width=160)
    settings = ReportSettings((demo_runs,), tmp_path / "report", draws=200, permutations=200)
    return write_report(settings, console), console.file.getvalue()


def table(report, key):
    return next(table for table in report.tables if table.key == key)


def test_mean_and_worst_equal_the_results_files(demo_runs):
    for row in answers_of(demo_runs):
        lines = (demo_runs / f"{row.system.method}-{row.system.k}" / "results.jsonl").read_text().splitlines()
        rows = sorted((json.loads(line) for line in lines), key=lambda r: r["task"])
        by_task = {t: [r["value"] for r in g] for t, g in groupby(rows, key=lambda r: r["task"])}
        assert row.figures.mean.value == pytest.approx(np.mean([np.mean(v) for v in by_task.values()]))
        assert row.figures.worst.value == pytest.approx(np.mean([min(v) for v in by_task.values()]))
        assert row.figures.mean.low <= row.figures.mean.value <= row.figures.mean.high


def test_systems_stand_in_the_papers_order(demo_runs):
    methods = [(row.system.method, row.system.k) for row in answers_of(demo_runs)]
    assert methods == [
        ("zero", 0),
        ("direct", 4),
        ("direct", 16),
        ("pmi", 16),
        ("channel", 4),
        ("channel", 16),
    ]


def test_a_missing_task_is_counted(tmp_path, made, written):
    written(tmp_path / "a", [made("mood", 13, 1.0), made("quiz", 13, 1.0)])
    written(tmp_path / "b", [made("mood", 13, 1.0, method="channel")])
    direct, channel = answers_of(tmp_path)
    assert (direct.missing, channel.missing) == ((), ("quiz",))
    outcome = write_report(
        ReportSettings((tmp_path,), tmp_path / "out", formats=()), Console(file=io.StringIO())
    )
    assert [row[3].text for row in table(outcome, "results").rows][1].endswith(" †1/2")


@pytest.mark.parametrize(("method", "n_null"), [("pmi", 1), ("calibrated", 3)])
def test_rescoring_equals_the_rules_applied_one_by_one(tmp_path, made, written, method, n_null):
    """Every calibration and normalization against `engine.ranking`, example by example."""
    cells = [
        made(task, seed, 1.0, method=method, n_null=n_null) for task in ("weather", "quiz") for seed in (1, 2)
    ]
    written(tmp_path, cells)
    found = {
        (r.system.method, r.system.k, r.calibration, r.normalization): r
        for r in rescore(read_outputs([tmp_path]))
    }
    as_run = Calibration.PMI if n_null == 1 else Calibration.CONTEXTUAL
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for calibration in (Calibration.NONE, Calibration.PMI, Calibration.CONTEXTUAL):
        if calibration == Calibration.CONTEXTUAL and method == "pmi":
            continue  # one content-free input: contextual calibration ranks as PMI does
        for rule in NORMALIZATIONS.values():
            cells: dict[tuple[str, int], list[tuple[str, str]]] = {}
            for row in rows:
                counts = [
                    OptionCounts(*c)
                    for c in zip(row["n_tokens"], row["n_chars"], row["n_bytes"], strict=True)
                ]
                layers = [row["sum_nll"], *row["null_sum_nll"]]
                (scores,) = option_scores(
                    [layers], [[counts] * len(layers)], calibration=calibration, normalization=rule
                )
                pair = (row["gold"], row["options"][best_option(scores)])
                cells.setdefault((row["task"], row["seed"]), []).append(pair)
            values: dict[str, list[float]] = {}
            for (task, _), pairs in cells.items():
                metric = Metric.ACCURACY if task == "quiz" else Metric.MACRO_F1
                values.setdefault(task, []).append(score(metric, *map(list, zip(*pairs, strict=True))))
            expected = np.mean([np.mean(v) for v in values.values()])
            ours = found[method, 16, calibration, rule]
            assert ours.mean == pytest.approx(expected, abs=1e-12), (calibration, rule)
            assert ours.as_run == (calibration == as_run and rule == Normalization.TOKEN_MEAN)


def test_without_null_scores_only_rules_that_need_none_are_compared(demo_runs):
    rules = {r.calibration for r in rescore(read_outputs([demo_runs])) if r.system.method == "direct"}
    assert rules == {Calibration.NONE, Calibration.BATCH_TRANSDUCTIVE, Calibration.PRIOR_TRANSDUCTIVE}


def test_tests_pair_systems_that_differ_in_one_respect(demo_runs):
    base = System("demo", "direct", "tiny", 16, "", "")
    assert differ_in_one_respect(base, System("demo", "channel", "tiny", 16, "", ""))
    assert differ_in_one_respect(base, System("demo", "direct", "tiny", 4, "", ""))
    assert differ_in_one_respect(base, System("demo", "zero", "tiny", 0, "", ""))
    assert differ_in_one_respect(base, System("demo", "direct", "tiny", 16, "", "order=2"))
    assert not differ_in_one_respect(base, System("demo", "channel", "tiny", 4, "", ""))
    assert not differ_in_one_respect(base, System("demo", "channel", "gpt2", 16, "", ""))
    assert not differ_in_one_respect(base, base)
    tests, problems = compare_pairs(answers_of(demo_runs), 200, 0)
    assert problems == []
    assert all(test.comparison.p_value <= test.adjusted <= 1 for test in tests)
    assert all(test.comparison.difference >= 0 for test in tests)


def test_published_numbers_are_the_papers():
    cells = {(c.table, c.scope, c.setting, c.method, c.model, c.condition): c for c in published_cells()}
    assert len(published_cells()) == 410
    main = cells["Table 5", "all", "hr_to_lr", "channel_metaicl", "gpt2_large", ""]
    assert (main.mean, main.worst, main.k) == (49.1, 46.8, 16)
    unseen = cells["Table 5", "unseen_domain", "qa_to_qa", "multitask_zero", "gpt2_large", ""]
    assert (unseen.mean, unseen.worst, unseen.k) == (71.2, None, 0)
    assert cells["Table 10", "all", "hr_to_lr", "direct", "gptj_6b", ""].mean == 43.8
    words = cells[
        "Table 13",
        "all",
        "class_to_class",
        "metaicl",
        "gpt2_large",
        "train_labels=replaced,test_labels=replaced",
    ]
    assert (words.mean, words.worst) == (43.5, 35.2)


def test_every_published_cell_gets_a_verdict(tmp_path, made, written):
    tasks = ("poem", "codah")
    for model in ("gpt2_large", "tiny"):
        method = "direct" if model == "gpt2_large" else "channel"
        cells = [made(t, 13, 5.0, setting="hr_to_lr", model=model, method=method) for t in tasks]
        written(tmp_path / model, cells)
    scopes = {"all": tasks, "unseen_domain": (*tasks, "missing")}
    compared = compare_with_published(
        answers_of(tmp_path),
        lambda setting, scope: scopes[scope] if setting == "hr_to_lr" else (),
        **NO_TARGETS,
    )
    verdicts = {
        (c.published.method, c.published.scope): c.verdict
        for c in compared
        if c.published.table == "Table 5" and c.published.setting == "hr_to_lr"
    }
    assert len(compared) == 410
    assert verdicts["direct", "all"] == Verdict.HIGHER
    assert verdicts["direct", "unseen_domain"] == Verdict.INCOMPLETE
    assert verdicts["channel", "all"] == Verdict.OTHER_MODEL
    assert verdicts["pmi", "all"] == Verdict.NOT_RUN


def test_draws_of_training_tasks_are_compared_as_their_mean(tmp_path, made, written):
    tasks = ("poem", "mood")
    for draw, skill in enumerate((0.5, 3.0)):
        cells = [
            made(t, seed, skill, setting="hr_to_lr", model="gpt2_large", method="metaicl", salt=f"draw{draw}")
            for t in tasks
            for seed in (13, 21)
        ]
        condition = f"train_tasks=7,draw={draw}"
        written(tmp_path / str(draw), cells, {"k": 16, "condition": condition})
    rows = answers_of(tmp_path)
    means = {row.system.condition: row.figures.mean.value for row in rows}
    assert set(means) == {"train_tasks=7,draw=0", "train_tasks=7,draw=1"}
    (cell,) = [
        c
        for c in compare_with_published(rows, lambda setting, scope: tasks, **NO_TARGETS)
        if c.published.table == "Figure 2" and c.ours
    ]
    assert (cell.published.method, cell.published.condition) == ("metaicl", "train_tasks=7")
    assert cell.ours.mean.value == pytest.approx(np.mean(list(means.values())))
    assert cell.ours.mean.low < cell.ours.mean.value < cell.ours.mean.high
    assert (cell.found, cell.expected) == (2, 2)


def test_every_format_is_written_and_read_back(report):
    outcome, printed = report
    names = {path.name for path in outcome.files}
    assert {"report.md", "report.html", "results.csv", "results.tex", "shots.png", "shots.svg"} <= names
    assert "Results" in printed
    files = {path.name: path for path in outcome.files}
    rows = list(csv.DictReader(files["results.csv"].open()))
    assert [(row["Method"], row["k (shown)"]) for row in rows][:2] == [
        ("0-shot", "zero-shot"),
        ("In-context", "4"),
    ]
    assert f"{float(rows[0]['Mean']):.1f}" == rows[0]["Mean (shown)"]
    assert files["shots.png"].read_bytes().startswith(b"\x89PNG")
    assert files["report.md"].read_text().count("\n## ") == len(outcome.tables)


class PageCheck(HTMLParser):
    """Collects what a page must not have, and what it must."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.loads, self.figures = [], [], [], []
        self.row_lengths, self.open = [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        for name in ("src", "srcset", "data", "action", "poster"):
            if name in attributes:
                self.loads.append(attributes[name])
        if tag == "link":
            self.loads.append(attributes.get("href"))
        if tag == "figure":
            self.figures.append(attributes.get("aria-label", ""))


def test_the_page_stands_alone(report):
    outcome, _ = report
    text = next(path for path in outcome.files if path.name == "report.html").read_text()
    page = PageCheck()
    page.feed(text)
    assert page.loads == []
    outside = {url for url in re.findall(r"https?://[^\s\"'<>)]+", text) if "www.w3.org" not in url}
    assert outside == set()
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.figures) == len(outcome.plots)
    assert all("demo" in label and len(label) > 40 for label in page.figures)
    assert text.count('<th scope="col"') == sum(
        len(without_constant_columns(t).columns) for t in outcome.tables
    )
    assert "prefers-color-scheme: dark" in text


def test_confidence_is_that_of_the_stored_scores(report, demo_runs):
    outcome, _ = report
    rows = {(row[1].text, row[2].value): row for row in table(outcome, "confidence").rows}
    assert len(rows) == 6
    lines = (demo_runs / "direct-16" / "predictions.jsonl").read_text().splitlines()
    sure, right, nll = [], [], []
    for one in map(json.loads, lines):
        weights = np.exp(-np.array(one["nll"]))
        shares = weights / weights.sum()
        sure.append(shares.max())
        right.append(one["prediction"] == one["gold"])
        nll.append(-np.log(shares[one["options"].index(one["gold"])]))
    row = rows["In-context", 16]
    assert [row[4].value, row[5].value] == pytest.approx([100 * np.mean(sure), 100 * np.mean(right)])
    assert row[9].value == pytest.approx(np.mean(nll))
    surest = np.argsort(-np.array(sure), kind="stable")[: len(sure) // 2]
    assert row[11].value == pytest.approx(100 * np.mean(np.array(right)[surest]))


@pytest.mark.parametrize("answered", [0.2, 0.8])
def test_the_share_of_surest_answers_is_a_key(demo_runs, tmp_path, answered):
    settings = ReportSettings(
        (demo_runs,), tmp_path / "out", draws=5, permutations=5, formats=("html",), answered=answered
    )
    found = table(write_report(settings, Console(file=io.StringIO())), "confidence")
    assert found.columns[-1] == f"At {100 * answered:.0f} %"
    assert f"accuracy of the surest {100 * answered:.0f} %" in found.note


def test_the_page_is_in_the_order_of_its_links(report):
    outcome, _ = report
    text = next(path for path in outcome.files if path.name == "report.html").read_text()
    links = re.findall(r'<li><a href="#([^"]+)">', text)
    assert links == [one for one in re.findall(r'<section id="([^"]+)"', text) if one in links]
    assert links == re.findall(r'<section id="([^"]+)"', text)


def test_every_row_says_where_it_is_from(tmp_path, made, written):
    """Folder, what differs, commit, date, how it was scored and (as a link) dashboard, of each run of each row."""
    for length in (256, 512):
        cells = [made("mood", 13, 1.0, salt=str(length))]
        folder = written(tmp_path / "runs" / str(length), cells)
        record = {
            "format": 2,
            "config": {"k": 16, "prompt": {"max_length": length}},
            "git_commit": "0" * 40 + "-dirty",
            "cost": {"route": "shared_prefixes", "self_check": 1.1444e-05 if length == 512 else None},
        }
        (folder / "run.json").write_text(
            json.dumps(sealed({**record, "started": "2026-01-02T03:04:05+0000"}))
        )
    (folder / "wandb.json").write_text(json.dumps({"url": "https://dash.example/runs/abc"}))
    settings = ReportSettings(
        (tmp_path / "runs",), tmp_path / "out", draws=5, permutations=5, formats=("html",)
    )
    outcome = write_report(settings, Console(file=io.StringIO()))
    rows = [[cell.text for cell in row[4:]] for row in table(outcome, "runs").rows]
    assert rows == [
        [
            str(tmp_path / "runs" / str(length)),
            f"prompt.max_length={length}",
            "0" * 12 + "-dirty",
            "2026-01-02 03:04",
            "shared prefixes",
            off_alone,
            link,
        ]
        for length, off_alone, link in ((256, "", ""), (512, "1e-05", "abc"))
    ]
    assert '<a href="https://dash.example/runs/abc">abc</a>' in outcome.files[0].read_text()


@pytest.mark.slow
def test_tables_sort_in_a_browser(report, tmp_path):
    """Headless Chromium clicks a number column twice: highest first, then lowest first."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    outcome, _ = report
    text = next(path for path in outcome.files if path.name == "report.html").read_text()
    click = "document.querySelectorAll('#results thead th.number button')[0].click();"
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    for clicks, direction in ((1, "descending"), (2, "ascending")):
        page = tmp_path / f"{direction}.html"
        page.write_text(text.replace("</body>", f"<script>{click * clicks}</script></body>"))
        command = [
            chromium, *flags.split(), "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / direction}", "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        section = dom[dom.index('<section id="results">') : dom.index('<section id="plots"')]
        rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)[1:]
        values = [float(re.search(r'class="number" data-value="([^"]+)"', row)[1]) for row in rows]
        assert f'aria-sort="{direction}"' in section
        assert len(values) == 6
        assert values == sorted(values, reverse=direction == "descending")


def test_a_hostile_name_is_text_on_the_page(tmp_path, made, written):
    written(tmp_path / "run", [made("<script>alert(1)</script>", 13, 1.0, model="[bold]x|y_z&")])
    console = Console(file=io.StringIO(), width=160)
    outcome = write_report(ReportSettings((tmp_path,), tmp_path / "out", draws=50), console)
    text = next(path for path in outcome.files if path.name == "report.html").read_text()
    assert "<script>alert" not in text
    assert "[bold]x|y_z&" in console.file.getvalue()
    assert r"x\|y\_z\&" not in text


def test_the_same_runs_give_the_same_files(demo_runs, tmp_path):
    for name in "ab":
        settings = ReportSettings((demo_runs,), tmp_path / name, draws=100, permutations=100)
        write_report(settings, Console(file=io.StringIO()))
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_a_column_that_says_the_same_everywhere_moves_to_the_note():
    rows = tuple((*names("demo", method, "tiny"), TableCell("1", 1.0)) for method in ("a", "b"))
    shown = without_constant_columns(
        Table("t", "T", "Note.", ("Setting", "Method", "Model", "Mean"), rows, 3)
    )
    assert (shown.columns, shown.n_labels) == (("Method", "Mean"), 1)
    assert shown.note == "Setting demo, model tiny. Note."


def test_the_best_of_a_column_has_all_tasks(tmp_path, made, written):
    written(tmp_path / "a", [made("mood", 13, 1.0), made("quiz", 13, 0.0)])
    written(tmp_path / "b", [made(task, 13, 4.0, method="pmi") for task in ("mood", "quiz")])
    written(tmp_path / "c", [made("mood", 13, 9.0, method="channel")])
    outcome = write_report(
        ReportSettings((tmp_path,), tmp_path / "out", formats=()), Console(file=io.StringIO())
    )
    best = [row[0].text for row in table(outcome, "results").rows if row[3].best]
    assert best == ["PMI In-context"]


def test_latex_and_markdown_escape_their_marks():
    example = Table(
        "t", "A & B", "50 %", ("na_me", "x|y"), ((TableCell("a_b"), TableCell("1", 1.0, best=True)),)
    )
    assert r"na\_\allowbreak{}me" in latex(example)
    assert r"& x\textbar{}y \\" in latex(example)
    assert r"a\_\allowbreak{}b & \textbf{1} \\" in latex(example)
    assert r"A \& B. 50 \%" in latex(example)
    assert "| a_b | **1** |" in markdown([example], [])
    assert r"x\|y" in markdown([example], ["a problem"])
    assert comma_separated(example) == "na_me,x|y,x|y (shown)\na_b,1.0,1\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ("pdf",)}, r"report.formats.0: input should be .*, got 'pdf'"),
    ],
)
def test_bad_settings_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        ReportSettings((tmp_path,), tmp_path, **change)


@pytest.mark.slow
def test_a_hundred_thousand_predictions_are_reported(tmp_path, made, written):
    """Printed, not asserted: the target is under 10 s on two shared cores."""
    tasks = [f"task {number}" for number in range(25)]
    for method in ("direct", "channel"):
        cells = [made(t, s, 1.0, method=method, n=400) for t in tasks for s in (1, 2, 3, 4, 5)]
        written(tmp_path / "runs" / method, cells)
    start = time.perf_counter()
    outcome = write_report(
        ReportSettings((tmp_path / "runs",), tmp_path / "out"), Console(file=io.StringIO())
    )
    print(f"{dict(outcome.facts)['Predictions']} predictions in {time.perf_counter() - start:.1f} s")
    assert dict(outcome.facts)["Predictions"] == "100,000"


def test_a_sample_of_the_test_rows_is_marked_as_one(tmp_path, made, written):
    cells = [made("weather", seed, 1.0, n=40) for seed in (100, 13)]
    sampled = [(replace(result, sampled_from=400), rows) for result, rows in cells]
    written(tmp_path / "sample", sampled, {"k": 16})
    outputs = read_outputs([tmp_path])
    (row,), _ = collect_systems(outputs, lambda _: (), draws=20, level=0.95, seed=0)
    assert row.sampled == (40, 400)
    assert row.mark == " §40/400 rows"
    assert "a sample of a of the b test rows" in incomplete_note([row])
