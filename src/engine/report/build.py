"""The report stage: from output folders to tables, tests, plots and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from metashot.base.errors import DataError, OutputError
from metashot.base.files import GONE, write_atomic
from metashot.data.settings import load_setting
from metashot.engine.report.config import ReportConfig
from metashot.engine.report.formats import text
from metashot.engine.report.formats.harness_output import harness_files
from metashot.engine.report.formats.latex import latex
from metashot.engine.report.page.explorer import Explorer, explorer
from metashot.engine.report.page.html import page
from metashot.engine.report.page.plots import Plot, diagnosis_plot, results_plot, seeds_plot, shots_plot
from metashot.engine.report.reading.outputs import Outputs, read_outputs
from metashot.engine.report.systems.diagnosis import Diagnosis, diagnose
from metashot.engine.report.systems.pair_tests import compare_pairs, leaders
from metashot.engine.report.systems.published import Verdict, compare_with_published
from metashot.engine.report.systems.rescoring import rescore
from metashot.engine.report.systems.results import System, SystemResults, collect_systems
from metashot.engine.report.systems.sampled import sampled_systems
from metashot.engine.report.systems.stored_scores import stored_scores
from metashot.engine.report.tables import comparisons, result_tables
from metashot.engine.report.tables.confidence_table import confidence_table
from metashot.engine.report.tables.diagnosis_table import diagnosis_table
from metashot.engine.report.tables.held_out_table import held_out_table
from metashot.engine.report.tables.own_metrics import own_metrics_table
from metashot.engine.report.tables.prompt_table import prompt_table
from metashot.engine.report.tables.run_list import runs_table
from metashot.engine.report.tables.sample_table import sample_table
from metashot.engine.report.tables.table import Table, without_constant_columns


@dataclass(frozen=True, slots=True)
class ReportSettings(ReportConfig):
    """What to report on, and where to.

    Attributes:
        runs: output folders, or folders above them.
        output: where the report is written.
        own: the folder of the run that reports; it ends after its report.
    """

    runs: tuple[Path, ...]
    output: Path
    own: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What was computed.

    Attributes:
        tables: in reading order; empty ones are left out.
        plots: in reading order.
        problems: sentences about what was left out.
        facts: (name, value) pairs about the whole.
        files: what was written.
        lost: folders that could not be used at all, which a report must not end well without.
    """

    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    problems: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    files: tuple[Path, ...]
    lost: tuple[Path, ...] = ()


def write_report(settings: ReportSettings, console: Console) -> Report:
    """Read the runs, compute everything, write and print it.

    Raises:
        OutputError: no results, results of mixed formats, or the output folder cannot be written or was removed.
    """
    outputs = read_outputs(settings.runs, settings.own, settings.names)
    draws, level, seed = settings.draws, settings.level, settings.seed
    answers, left_out = collect_systems(outputs, _targets, draws=draws, level=level, seed=seed)
    tests, untested = compare_pairs(answers, settings.permutations, seed)
    compared = compare_with_published(answers, _scope_tasks, draws=draws, level=level, seed=seed)
    alpha = round(1 - level, 6)
    best = leaders(answers, settings.permutations, seed, alpha)
    stored, rescored = stored_scores(outputs), rescore(outputs)
    diagnosed = diagnose(outputs, answers)
    results = result_tables.result_tables(answers, best, level, alpha)
    every = [
        *([result_tables.overview_table(answers, best, alpha)] if len(results) > 1 else []),
        *results,
        comparisons.published_table(compared),
        comparisons.test_table(tests),
        comparisons.shots_table(answers),
        comparisons.variant_table(answers),
        comparisons.sensitivity_table(answers),
        sample_table(sampled_systems(outputs, answers, draws=draws, level=level, seed=seed), level),
        prompt_table(answers, draws, level, seed),
        *result_tables.task_tables(answers),
        own_metrics_table(outputs),
        comparisons.rescoring_table(rescored, answers),
        comparisons.calibrating_table(rescored, answers),
        confidence_table(stored, answers, settings.answered, draws, level, seed),
        diagnosis_table(diagnosed, answers),
        held_out_table(stored, answers, settings.coverage, draws, level, seed),
        runs_table(answers),
    ]
    shown = tuple(table for table in every if table.rows)
    problems = (*outputs.problems, *left_out, *untested)
    plots = _plots(answers, diagnosed) if {"plots", "html"} & set(settings.formats) else ()
    facts = _facts(outputs, answers, sum(c.verdict != Verdict.NOT_RUN for c in compared), len(compared))
    report = Report(shown, plots, problems, facts, ())
    examples = explorer(outputs, answers) if "html" in settings.formats else None
    files = _write(report, settings, examples, answers)
    if "console" in settings.formats:
        _print(report, console)
    pages = [path for path in files if path.suffix in (".html", ".md")] or list(files[:1])
    for path in pages:
        console.print(f"written: {path}", markup=False, soft_wrap=True, highlight=False)
    return replace(report, files=files, lost=outputs.lost)


PLOTS: tuple[Callable[[str, Sequence[SystemResults]], Plot | None], ...] = (results_plot, seeds_plot)
"""What is drawn of each setting: (setting, its rows) to a plot, or None where there is nothing to show."""


def _plots(answers: Sequence[SystemResults], found: Mapping[System, Diagnosis]) -> tuple[Plot, ...]:
    curves = comparisons.shot_curves(answers)
    by_setting: dict[str, list[SystemResults]] = {}
    for row in answers:
        by_setting.setdefault(row.system.setting, []).append(row)
    drawn = [shots_plot(curves) if curves else None]
    drawn += [make(setting, rows) for setting, rows in by_setting.items() for make in PLOTS]
    drawn += [diagnosis_plot(setting, rows, found) for setting, rows in by_setting.items()]
    return tuple(plot for plot in drawn if plot is not None)


def _write(
    report: Report, settings: ReportSettings, examples: Explorer | None, answers: Sequence[SystemResults]
) -> tuple[Path, ...]:
    title = "metashot report"
    shown = [without_constant_columns(table) for table in report.tables]
    writers: dict[str, Callable[[], dict[str, str | bytes]]] = {
        "markdown": lambda: {"report.md": text.markdown(shown, report.problems)},
        "latex": lambda: {f"tables/{t.key}.tex": latex(t) for t in shown},
        "csv": lambda: {f"tables/{t.key}.csv": text.comma_separated(t) for t in report.tables},
        "plots": lambda: {
            f"plots/{plot.key}.{end}": content
            for plot in report.plots
            for end, content in (("svg", plot.svg), ("png", plot.png))
        },
        "lm_eval": lambda: {**harness_files(answers, settings.draws, settings.level, settings.seed)},
        "html": lambda: {
            "report.html": page(title, report.facts, shown, report.plots, report.problems, examples)
        },
    }
    written: list[Path] = []
    for name in settings.formats:
        for relative, content in writers[name]().items() if name in writers else ():
            path = settings.output / relative
            write_atomic(path, content)
            written.append(path)
    lost = [path for path in written if not path.is_file()]
    if lost:
        raise OutputError(str(settings.output), f"{lost[0].name} is gone again: {GONE}", "report once more")
    return tuple(written)


def _print(report: Report, console: Console) -> None:
    for problem in report.problems:
        console.print(f"problem: {problem}", style="yellow", markup=False)
    for table in report.tables:
        if not table.folded:
            console.print(text.console(without_constant_columns(table)))


def _facts(
    outputs: Outputs, answers: Sequence[SystemResults], compared: int, published: int
) -> tuple[tuple[str, str], ...]:
    models = sorted({row.system.model for row in answers})
    settings = sorted({row.system.setting for row in answers})
    return (
        ("Runs", str(len(outputs.runs))),
        ("Cells", f"{outputs.results.height:,}"),
        ("Predictions", f"{outputs.predictions.height:,}"),
        ("Models", ", ".join(models)),
        ("Settings", ", ".join(settings)),
        *([("Published cells covered", f"{compared} of {published}")] if compared else []),
    )


def _targets(setting: str) -> Sequence[str]:
    """Target tasks of a shipped setting, sorted; empty for data that has no setting."""
    return _scope_tasks(setting, "all")


def _scope_tasks(setting: str, scope: str) -> Sequence[str]:
    try:
        loaded = load_setting(setting)
    except DataError:
        return ()
    return tuple(sorted(loaded.test if scope == "all" else loaded.unseen_domain_test))
