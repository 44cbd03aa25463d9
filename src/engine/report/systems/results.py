"""One row of a results table: a method with its model, setting and k, and everything it answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from metashot.base.components.choices import choice_names, choice_node
from metashot.engine.metrics.classification import AnyMetric, Metric, metric_named
from metashot.engine.metrics.statistics import (
    Interval,
    MeanAndWorst,
    TaskOutcomes,
    bootstrap_mean,
    is_share,
    task_outcomes,
)
from metashot.engine.report.reading.coverage import NOTE, Coverage, coverage_of
from metashot.engine.report.reading.folders import Run
from metashot.engine.report.reading.harness_files import is_harness_method
from metashot.engine.report.reading.outputs import SYSTEM, Outputs
from metashot.engine.report.reading.variants import with_variants

_PUBLISHED_TITLES = {
    "fine_tune": "Fine-tune",
    "fine_tune_meta_trained": "Fine-tune w/ meta-train",
    "random": "Random",
}
"""Rows of the papers that no method here makes."""
_LAST_ROW = 100
SHOWN_MARK = "‡"
SHOWN_NOTE = (
    f"{SHOWN_MARK} a/k shown: the prompts held only a of the k demonstrations in the mean; the others did not fit "
    "(prompt.max_length), so the row is no result of k."
)


SAMPLE_MARK = "§"
SAMPLE_NOTE = (
    f"{SAMPLE_MARK} a/b rows: a sample of a of the b test rows (data.limit, data.subset); its interval says how far from the "
    "figure of all rows it may be."
)


def method_title(name: str) -> str:
    """A method's name as tables print it: the `title` of its file in `conf/method`."""
    if name in choice_names("method"):
        return choice_node("method", name)["title"] or name
    return _PUBLISHED_TITLES.get(name, name)


def method_row(name: str) -> int:
    """A method's place among the rows of a table."""
    return choice_node("method", name)["row"] if name in choice_names("method") else _LAST_ROW


@dataclass(frozen=True, slots=True)
class System:
    """What produced a set of answers.

    Attributes:
        setting: task setting or data group.
        method: method name.
        model: model name.
        k: demonstrations.
        condition: what the experiment says it changed, for example `test_labels=replaced`.
        variant: config difference to other runs of the same name, or empty.
        own_title: what its runs call a method that is no file of the package's `conf/method`; says nothing of identity.
        own_row: where they want it.
    """

    setting: str
    method: str
    model: str
    k: int
    condition: str
    variant: str
    own_title: str = field(default="", compare=False)
    own_row: int | None = field(default=None, compare=False)

    @property
    def method_title(self) -> str:
        """The method as tables print it."""
        return self.own_title or method_title(self.method)

    @property
    def extras(self) -> str:
        """Condition and variant in one string."""
        return ", ".join(part for part in (self.condition.replace(",", ", "), self.variant) if part)

    @property
    def name(self) -> str:
        """Method and extras, for a row that has k in a column of its own."""
        return self.method_title + (f" [{self.extras}]" if self.extras else "")

    @property
    def title(self) -> str:
        """Method, k and extras, as a name that stands alone."""
        shots = f", k={self.k}" if self.k else ""
        return f"{self.method_title}{shots}" + (f" [{self.extras}]" if self.extras else "")

    @property
    def order(self) -> tuple[int, str, str, int, str]:
        """Sort key: methods as in the paper."""
        row = method_row(self.method) if self.own_row is None else self.own_row
        return row, self.method, self.model, self.k, self.extras


@dataclass(frozen=True, slots=True, eq=False)
class SystemResults:
    """A system with its outcomes and figures.

    Attributes:
        system: what produced them.
        outcomes: per task, in alphabetical order.
        expected: the target tasks of the setting, as far as they are known.
        figures: mean and worst over the tasks that are there, 0..1.
        coverage: how much of what the setting expects is there.
        runs: the folders that its cells are from.
        sampled: test rows that were taken and that its tasks have, where only a part was taken (`data.limit`).
        shown: demonstrations that its prompts held in the mean over cells, and at least, where these are fewer than k.
    """

    system: System
    outcomes: Mapping[str, TaskOutcomes]
    expected: tuple[str, ...]
    figures: MeanAndWorst
    coverage: Coverage
    runs: tuple[Run, ...] = ()
    shown: tuple[float, int] | None = None
    sampled: tuple[int, int] | None = None

    @property
    def mark(self) -> str:
        """What follows a figure that is over fewer cells, test rows or demonstrations than it seems."""
        shown = "" if self.shown is None else f" {SHOWN_MARK}{self.shown[0]:.1f}/{self.system.k} shown"
        sample = "" if self.sampled is None else f" {SAMPLE_MARK}{self.sampled[0]}/{self.sampled[1]} rows"
        return f"{self.coverage.mark}{shown}{sample}"

    @property
    def missing(self) -> tuple[str, ...]:
        """Expected tasks without a result."""
        return tuple(task for task in self.expected if task not in self.outcomes)

    @property
    def has_seeds(self) -> bool:
        """Whether seeds decide anything; without demonstrations they usually do not."""
        return _has_seeds(self.outcomes)

    @property
    def worst(self) -> Interval | None:
        """The worst-of-seeds figure; None where seeds change nothing, or a task has fewer seeds than the others."""
        return self.figures.worst if self.has_seeds and self.coverage.same_seeds else None


Targets = Callable[[str], Sequence[str]]


def collect_systems(
    outputs: Outputs, targets: Targets, *, draws: int, level: float, seed: int
) -> tuple[list[SystemResults], list[str]]:
    """Group the outputs by system, with bootstrap intervals.

    Args:
        outputs: from `read_outputs`.
        targets: target tasks of a setting; empty when the setting has no list.
        draws: bootstrap resamplings.
        level: confidence level.
        seed: of the resampling.

    Returns:
        The systems in table order, and sentences about what could not be used.
    """
    kept = with_variants(outputs.results, outputs.runs, outputs.names)
    key = ["run", "fingerprint", "task", "seed"]
    joined = (
        kept.select([*SYSTEM, *key, "metric", "test_digest"])
        .join(outputs.predictions.select([*key, "index", "gold", "prediction", "score"]), on=key, how="inner")
        .sort([*SYSTEM, "task", "seed", "index"])
    )
    problems = _cut_inputs(kept)
    found: list[tuple[System, dict[str, TaskOutcomes]]] = []
    folders: dict[System, tuple[Run, ...]] = {}
    shown, sampled = _shown(kept), _sampled(kept)
    for values, frame in joined.partition_by(SYSTEM, maintain_order=True, as_dict=True).items():
        runs = tuple(outputs.runs[number] for number in frame["run"].unique().sort())
        system = _as_its_runs_call_it(System(*values), runs)
        outcomes = _outcomes(system, frame, problems)
        if outcomes:
            found.append((system, outcomes))
            folders[system] = runs
    answers: list[SystemResults] = []
    for setting in dict.fromkeys(system.setting for system, _ in found):
        rows = [row for row in found if row[0].setting == setting]
        expected = _expected(setting, rows, outputs, targets)
        for system, outcomes in rows:
            figures = bootstrap_mean(list(outcomes.values()), draws, level, seed)
            seeded = _wants_seeds(system, outcomes)
            coverage = coverage_of(outcomes, expected.tasks, expected.seeds, expected.sizes, seeded=seeded)
            answers.append(
                SystemResults(
                    system,
                    outcomes,
                    expected.tasks,
                    figures,
                    coverage,
                    folders[system],
                    shown.get(system),
                    sampled.get(system),
                )
            )
            if not coverage.complete:
                problems.append(
                    f"{setting}, {system.title} ({system.model}): {coverage.cells} of {coverage.expected_cells} cells; "
                    f"{coverage.gap_text}. Its figures are marked and never the best."
                )
    return sorted(answers, key=lambda a: (a.system.setting, a.system.order)), problems


def _as_its_runs_call_it(system: System, runs: Sequence[Run]) -> System:
    """A method of one's own has its title and place from the config that its runs recorded."""
    if system.method in choice_names("method"):
        return system
    title = next((run.config["method.title"] for run in runs if run.config.get("method.title")), "")
    row = next((run.config["method.row"] for run in runs if run.config.get("method.row") is not None), None)
    return replace(system, own_title=str(title), own_row=row if isinstance(row, int) else None)


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a setting expects of each of its systems."""

    tasks: tuple[str, ...]
    seeds: frozenset[int]
    sizes: dict[str, int]


def _expected(
    setting: str, rows: Sequence[tuple[System, dict[str, TaskOutcomes]]], outputs: Outputs, targets: Targets
) -> _Expected:
    """Tasks of the setting, else all that its runs asked for or answered; seeds likewise."""
    numbers = outputs.results.filter(pl.col("setting") == setting)["run"].unique().to_list()
    configs = [outputs.runs[number].config for number in numbers]
    # Names of the harness may be groups; which tasks a run has lost is said by its record.
    own = [config for config in configs if "data.fewshot_seed" not in config]
    asked = {str(task) for config in own for task in config.get("data.tasks") or ()}
    answered = {task for _, outcomes in rows for task in outcomes}
    seeds = {
        int(seed)
        for system, outcomes in rows
        if _wants_seeds(system, outcomes)
        for outcome in outcomes.values()
        for seed in outcome.seeds
    }
    if seeds:  # of a setting where seeds matter
        seeds |= {int(seed) for config in configs if config.get("k") for seed in config.get("seeds") or ()}
    sizes: dict[str, int] = {}
    for _, outcomes in rows:
        for task, outcome in outcomes.items():
            sizes[task] = max(sizes.get(task, 0), outcome.gold.shape[1])
    return _Expected(tuple(targets(setting)) or tuple(sorted(asked | answered)), frozenset(seeds), sizes)


def _wants_seeds(system: System, outcomes: Mapping[str, TaskOutcomes]) -> bool:
    """Whether a system should have every demonstration seed; the harness has one draw of its own."""
    return not is_harness_method(system.method) and _has_seeds(outcomes)


def _cut_inputs(results: pl.DataFrame) -> list[str]:
    """A sentence for each task of which test inputs were cut, by the system and seed that lost most."""
    cut = results.filter(pl.col("cut_inputs") > 0).sort("cut_tokens", descending=True)
    return [
        f"Task {row['task']}: {row['cut_inputs']} of {row['n']} test inputs were cut, by {row['cut_tokens']:,} tokens "
        "together (prompt.max_length_per_example and prompt.overlong; in prompt tuning tuning.max_tokens)."
        for row in cut.unique("task", keep="first", maintain_order=True).iter_rows(named=True)
    ]


def _shown(results: pl.DataFrame) -> dict[System, tuple[float, int]]:
    """What the prompts held of k, of the systems whose rows say that it was less."""
    counted = (
        results.filter(pl.col("shown_mean").is_not_null(), pl.col("shown_least").is_not_null())
        .group_by(SYSTEM)
        .agg(pl.col("shown_mean").mean(), pl.col("shown_least").min())
        .filter(pl.col("shown_least") < pl.col("k"))
    )
    return {System(*values[: len(SYSTEM)]): (values[-2], values[-1]) for values in counted.iter_rows()}


def _sampled(results: pl.DataFrame) -> dict[System, tuple[int, int]]:
    """Test rows taken and there, of the systems of which some task was sampled."""
    tasks = results.unique([*SYSTEM, "task"], keep="first", maintain_order=True)
    whole = pl.when(pl.col("sampled_from") > 0).then(pl.col("sampled_from")).otherwise(pl.col("n"))
    counted = (
        tasks.with_columns(whole.alias("whole"))
        .group_by(SYSTEM)
        .agg(pl.col("n").sum(), pl.col("whole").sum(), pl.col("sampled_from").max().alias("most"))
        .filter(pl.col("most") > 0)
    )
    return {System(*row[: len(SYSTEM)]): (row[-3], row[-2]) for row in counted.iter_rows()}


def incomplete_note(answers: Sequence[SystemResults]) -> str:
    """What the marks mean that one of these rows carries, with a space in front; empty where none does."""
    notes = [NOTE] if not all(row.coverage.complete for row in answers) else []
    notes += [SHOWN_NOTE] if any(row.shown for row in answers) else []
    notes += [SAMPLE_NOTE] if any(row.sampled for row in answers) else []
    return "".join(f" {note}" for note in notes)


def _has_seeds(outcomes: Mapping[str, TaskOutcomes]) -> bool:
    return any(outcome.seeded for outcome in outcomes.values())


def _seeds_decide(k: int, rows: pl.DataFrame) -> bool:
    """Whether the seed decides anything in the cells of a task: several seeds say it by their fingerprints, one by k."""
    prints = rows.select("seed", "fingerprint").unique()
    return prints["fingerprint"].n_unique() > 1 if prints["seed"].n_unique() > 1 else k > 0


def _outcomes(system: System, frame: pl.DataFrame, problems: list[str]) -> dict[str, TaskOutcomes]:
    outcomes: dict[str, TaskOutcomes] = {}
    for (task,), rows in frame.partition_by(["task"], maintain_order=True, as_dict=True).items():
        metric = metric_named(rows["metric"][0])
        by_seed = {
            int(seed): _gold_and_answers(metric, part)
            for (seed,), part in rows.partition_by(["seed"], maintain_order=True, as_dict=True).items()
        }
        tests = {
            int(seed): str(digest) for seed, digest in rows.select("seed", "test_digest").unique().iter_rows()
        }
        try:
            seeded = _seeds_decide(system.k, rows)
            outcome = task_outcomes(str(task), metric, by_seed, tests, seeded=seeded)
        except ValueError as error:
            problems.append(f"{system.setting}, {system.title}: {error}; left out of every figure.")
            continue
        if is_share(outcome):
            outcomes[str(task)] = outcome
        else:
            problems.append(
                f"{system.setting}, {system.title}: {metric} of {task} is no share of answers, so that no mean holds it; see the "
                "table of the tasks' own metrics."
            )
    return outcomes


def _gold_and_answers(metric: AnyMetric, rows: pl.DataFrame) -> tuple[list[str], list[str]]:
    """The two columns that `task_outcomes` takes; where answers carry scores, these decide."""
    if rows["score"].null_count():
        return rows["gold"].to_list(), rows["prediction"].to_list()
    scores = rows["score"].cast(pl.String).to_list()
    return (["1.0"] * len(scores), scores) if metric is Metric.ACCURACY else (scores, scores)
