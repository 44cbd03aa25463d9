"""From the entries of a source to the entries of each file: own cuts, samples and the k-shot choice.

Source: the released preprocessing code (docs/methods.md, the k-shot protocol). Everything here works on indices, so that a source of millions
of rows is read twice instead of being held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metashot.data.kshot import CUT_SEED, legacy_generator
from metashot.data.recipes.keys import SplitPlan

Indices = np.ndarray
"""One-dimensional integer array of entry numbers, in the order in which they are written."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Entry numbers of a task's training list and evaluation list, in list order.

    Attributes:
        train: into the entries of the training split.
        test: into the entries of the evaluation split; None for all of them in order.
    """

    train: Indices
    test: Indices | None


def parts(plan: SplitPlan, n_train: int, n_test: int) -> Parts:
    """Apply a task's own cut or sample.

    Args:
        plan: the recipe's plan.
        n_train: entries of the training split.
        n_test: entries of the evaluation split (unused where both come out of one split).
    """
    if plan.cut is not None:
        order = legacy_generator(CUT_SEED).permutation(n_train)
        return Parts(_slice(order, plan.cut.train), _slice(order, plan.cut.test))
    train = np.arange(n_train)
    if plan.test_sample is None:
        return Parts(train, None)
    order = legacy_generator(CUT_SEED).permutation(n_test)
    return Parts(train, order[: int(plan.test_sample * n_test)])


def k_shot_entries(train: Indices, k: int, seed: int) -> tuple[Indices, Indices]:
    """Entry numbers of the k training and the next k development entries of one seed."""
    order = train[legacy_generator(seed).permutation(len(train))]
    return order[:k], order[k : 2 * k]


def drawn_entries(generator: Any, n: int, k: int) -> Indices:
    """First k of a permutation from a generator that may have drawn before (UnifiedQA's training files)."""
    return generator.permutation(n)[:k]


def entry_rows(entries: Indices, dropped: Indices) -> Indices:
    """Row numbers of entries, which are the rows that were not dropped.

    Args:
        entries: entry numbers.
        dropped: row numbers that became no entry, ascending.
    """
    # Row r holds entry r less the dropped rows before it, so dropped row i lies behind dropped[i] - i entries.
    return entries + np.searchsorted(dropped - np.arange(len(dropped)), entries, side="right")


def _slice(order: Indices, bounds: tuple[int | float, int | float]) -> Indices:
    start, stop = (int(bound * len(order)) if isinstance(bound, float) else bound for bound in bounds)
    return order[start:stop]
