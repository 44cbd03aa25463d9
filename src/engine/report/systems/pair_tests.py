"""Which systems are tested against each other, and the corrected p-values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from metashot.engine.metrics.permutation import Comparison, paired_permutation_test
from metashot.engine.metrics.statistics import holm
from metashot.engine.report.systems.results import System, SystemResults


@dataclass(frozen=True, slots=True)
class PairTest:
    """One test between two systems of a setting.

    Attributes:
        setting: the setting, inside which p-values are corrected.
        first: title of the first system.
        second: title of the second.
        comparison: difference and p-value.
        adjusted: p-value after Holm's correction.
        cells: (task, seed) cells that both have.
        expected_cells: cells that they would share if both were complete.
    """

    setting: str
    first: str
    second: str
    comparison: Comparison
    adjusted: float
    cells: int
    expected_cells: int


def compare_pairs(
    answers: Sequence[SystemResults], permutations: int, seed: int
) -> tuple[list[PairTest], list[str]]:
    """Test every pair of a setting that differs in one respect, the better one first.

    Returns:
        The tests by setting and p-value, and sentences about pairs that cannot be tested.
    """
    tests: list[PairTest] = []
    problems: list[str] = []
    for setting in dict.fromkeys(row.system.setting for row in answers):
        rows = [row for row in answers if row.system.setting == setting]
        several = len({row.system.model for row in rows}) > 1
        found: list[tuple[SystemResults, SystemResults, Comparison]] = []
        for one, other in itertools.combinations(rows, 2):
            if not differ_in_one_respect(one.system, other.system):
                continue
            better, lesser = sorted((one, other), key=lambda row: -row.figures.mean.value)
            try:
                comparison = paired_permutation_test(
                    list(better.outcomes.values()), list(lesser.outcomes.values()), permutations, seed
                )
            except ValueError as error:
                problems.append(
                    f"{setting}: {_name(one.system, several)} and {_name(other.system, several)} are not tested: {error}."
                )
                continue
            found.append((better, lesser, comparison))
        adjusted = holm([comparison.p_value for _, _, comparison in found])
        tests += [
            PairTest(
                setting, _name(better.system, several), _name(lesser.system, several), comparison, p,
                comparison.n_cells, max(better.coverage.expected_cells, lesser.coverage.expected_cells),
            )
            for (better, lesser, comparison), p in zip(found, adjusted, strict=True)
        ]  # fmt: skip
    return sorted(tests, key=lambda test: (test.setting, test.comparison.p_value)), problems


def leaders(answers: Sequence[SystemResults], permutations: int, seed: int, alpha: float) -> set[System]:
    """The best complete system of each setting, and those that are not significantly below it.

    Each is tested against the best by a paired permutation test, with Holm's correction inside the setting.

    Args:
        answers: all systems.
        permutations: sampled permutations of a test.
        seed: of the permutations.
        alpha: significance level.

    Returns:
        Empty for a setting with fewer than two complete systems: there is nothing to be better than.
    """
    found: set[System] = set()
    for setting in dict.fromkeys(row.system.setting for row in answers):
        rows = [row for row in answers if row.system.setting == setting and row.coverage.complete]
        if len(rows) < 2:
            continue
        best = max(rows, key=lambda row: row.figures.mean.value)
        others = [row for row in rows if row is not best]
        p_values: list[float] = []
        for other in others:
            try:
                test = paired_permutation_test(
                    list(best.outcomes.values()), list(other.outcomes.values()), permutations, seed
                )
            except ValueError:  # the two share no test example: nothing says that they are equal
                p_values.append(0.0)
            else:
                p_values.append(test.p_value)
        found.add(best.system)
        found |= {row.system for row, p in zip(others, holm(p_values), strict=True) if p >= alpha}
    return found


def differ_in_one_respect(one: System, other: System) -> bool:
    """Whether two systems of a setting differ in method, model, k or extras, but only in one of them.

    Zero-shot methods have no k, so k does not count as a difference to them.
    """
    shots = one.k != other.k and bool(one.k) and bool(other.k)
    same_method_other_k = one.method == other.method and one.k != other.k
    return (
        sum(
            [
                one.method != other.method,
                one.model != other.model,
                shots or same_method_other_k,
                one.extras != other.extras,
            ]
        )
        == 1
    )


def _name(system: System, with_model: bool) -> str:
    return f"{system.title} ({system.model})" if with_model else system.title
