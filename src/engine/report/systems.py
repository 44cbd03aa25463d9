"""One row of a results table: a method with its model, setting and k, and everything it answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from metashot.engine.components.choices import choice_names, choice_node
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.statistics import MeanAndWorst, TaskOutcomes, bootstrap_mean, task_outcomes
from metashot.engine.report.reading import SYSTEM, Outputs
from metashot.engine.report.variants import with_variants

_PUBLISHED_TITLES = {
    "fine_tune": "Fine-tune",
    "fine_tune_meta_trained": "Fine-tune w/ meta-train",
    "random": "Random",
}
"""Rows of the papers that no method here makes."""
_LAST_ROW = 100


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
    """

    setting: str
    method: str
    model: str
    k: int
    condition: str
    variant: str

    @property
    def extras(self) -> str:
        """Condition and variant in one string."""
        return ", ".join(part for part in (self.condition.replace(",", ", "), self.variant) if part)

    @property
    def title(self) -> str:
        """Method, k and extras, as a row's name."""
        name = method_title(self.method)
        shots = f", k={self.k}" if self.k else ""
        return f"{name}{shots}" + (f" [{self.extras}]" if self.extras else "")

    @property
    def order(self) -> tuple[int, str, str, int, str]:
        """Sort key: methods as in the paper."""
        return method_row(self.method), self.method, self.model, self.k, self.extras


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A system with its outcomes and figures.

    Attributes:
        system: what produced them.
        outcomes: per task, in alphabetical order.
        expected: the target tasks of the setting, as far as they are known.
        figures: mean and worst over the tasks that are there, 0..1.
    """

    system: System
    outcomes: Mapping[str, TaskOutcomes]
    expected: tuple[str, ...]
    figures: MeanAndWorst

    @property
    def missing(self) -> tuple[str, ...]:
        """Expected tasks without a result."""
        return tuple(task for task in self.expected if task not in self.outcomes)

    @property
    def has_seeds(self) -> bool:
        """Whether seeds change anything; without demonstrations they usually do not."""
        return any(
            (outcome.prediction != outcome.prediction[0]).any() or (outcome.gold != outcome.gold[0]).any()
            for outcome in self.outcomes.values()
        )


Targets = Callable[[str], Sequence[str]]


def collect_answers(
    outputs: Outputs, targets: Targets, *, draws: int, level: float, seed: int
) -> tuple[list[Answers], list[str]]:
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
    kept = with_variants(outputs.results, outputs.runs)
    key = ["run", "fingerprint", "task", "seed"]
    joined = (
        kept.select([*SYSTEM, *key, "metric"])
        .join(outputs.predictions.select([*key, "index", "gold", "prediction"]), on=key, how="inner")
        .sort([*SYSTEM, "task", "seed", "index"])
    )
    problems: list[str] = []
    answers: list[Answers] = []
    for values, frame in joined.partition_by(SYSTEM, maintain_order=True, as_dict=True).items():
        system = System(*values)
        outcomes = _outcomes(system, frame, problems)
        if outcomes:
            figures = bootstrap_mean(list(outcomes.values()), draws, level, seed)
            answers.append(Answers(system, outcomes, tuple(targets(system.setting)), figures))
    answers = _with_expected(answers)
    return sorted(answers, key=lambda a: (a.system.setting, a.system.order)), problems


def _outcomes(system: System, frame: pl.DataFrame, problems: list[str]) -> dict[str, TaskOutcomes]:
    outcomes: dict[str, TaskOutcomes] = {}
    for (task,), rows in frame.partition_by(["task"], maintain_order=True, as_dict=True).items():
        by_seed = {
            int(seed): (part["gold"].to_list(), part["prediction"].to_list())
            for (seed,), part in rows.partition_by(["seed"], maintain_order=True, as_dict=True).items()
        }
        try:
            outcomes[str(task)] = task_outcomes(str(task), Metric(rows["metric"][0]), by_seed)
        except ValueError as error:
            problems.append(f"{system.setting}, {system.title}: {error}; left out of every figure.")
    return outcomes


def _with_expected(answers: Sequence[Answers]) -> list[Answers]:
    """Where a setting has no task list, expect what any of its systems answered."""
    seen: dict[str, set[str]] = {}
    for row in answers:
        seen.setdefault(row.system.setting, set()).update(row.outcomes)
    return [
        Answers(
            row.system, row.outcomes, row.expected or tuple(sorted(seen[row.system.setting])), row.figures
        )
        for row in answers
    ]
