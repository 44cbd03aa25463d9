"""What a setting's data looks like before anything is trained on it: balance, lengths, duplicates, leakage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table

from metashot.base.errors import DataError
from metashot.data.kshot import POOL_K, POOL_SEED, TARGET_K
from metashot.data.preparation.leakage import Overlap, overlaps
from metashot.data.rows.jsonl import file_name, read_examples
from metashot.data.settings import Setting, published_overlap
from metashot.data.task import Example

LEAKAGE_SAMPLE = 2000
"""Training examples per task that are compared with the test sets, unless more are asked for."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Length of a text field in words: mean, median, 95th percentile and largest."""

    mean: float
    median: float
    p95: float
    largest: int


@dataclass(frozen=True, slots=True)
class TaskCheck:
    """Figures of one task's file.

    Attributes:
        task: name.
        n: examples.
        duplicates: examples whose input and output stood before.
        conflicts: inputs that occur with more than one output.
        labels: outputs and how often each occurs, most frequent first; empty for free-form tasks.
        input: input lengths.
        output: output lengths.
        outside_options: examples whose output is none of their options.
    """

    task: str
    n: int
    duplicates: int
    conflicts: int
    labels: tuple[tuple[str, int], ...]
    input: Lengths
    output: Lengths
    outside_options: int

    @property
    def majority_share(self) -> float:
        """Share of the most frequent label: what a constant guess scores in accuracy."""
        return self.labels[0][1] / self.n if self.labels else 0.0


@dataclass(frozen=True, slots=True)
class SettingCheck:
    """All figures of a setting.

    Attributes:
        train: training pools.
        test: test sets.
        leakage: overlap per target.
        published_overlap: tasks that the published lists have on both sides.
        missing: files that are not there.
        sampled: training examples per task that were compared for leakage.
    """

    train: tuple[TaskCheck, ...]
    test: tuple[TaskCheck, ...]
    leakage: tuple[Overlap, ...]
    published_overlap: tuple[str, ...]
    missing: tuple[str, ...]
    sampled: int

    def tables(self) -> Group:
        """For the terminal."""
        parts = [
            _task_table(title, checks)
            for title, checks in (("meta-training tasks", self.train), ("target tasks", self.test))
            if checks
        ]
        if self.train and self.test:
            parts.append(_leakage_table(self.leakage, self.sampled))
        notes: list[str] = []
        if self.published_overlap:
            notes.append(f"in training and target lists, as published: {', '.join(self.published_overlap)}")
        if self.missing:
            notes.append(f"{len(self.missing)} files missing: {', '.join(self.missing[:5])}")
        return Group(*parts, *notes)


def check_task(task: str, examples: Sequence[Example]) -> TaskCheck:
    """Figures of one list of examples.

    Raises:
        DataError: there are none.
    """
    if not examples:
        raise DataError(task, "has no examples to check", "prepare the task")
    pairs = Counter((example.input, example.output) for example in examples)
    outputs_of: dict[str, set[str]] = {}
    for example in examples:
        outputs_of.setdefault(example.input, set()).add(example.output)
    shared = {example.options for example in examples}
    is_classification = len(shared) == 1 and bool(next(iter(shared)))
    return TaskCheck(
        task=task,
        n=len(examples),
        duplicates=len(examples) - len(pairs),
        conflicts=sum(len(outputs) > 1 for outputs in outputs_of.values()),
        labels=tuple(Counter(example.output for example in examples).most_common())
        if is_classification
        else (),
        input=_lengths([len(example.input.split()) for example in examples]),
        output=_lengths([len(example.output.split()) for example in examples]),
        outside_options=sum(bool(one.options) and one.output not in one.options for one in examples),
    )


def check_setting(
    root: Path,
    setting: Setting,
    k: int = TARGET_K,
    seed: int = POOL_SEED,
    pool_k: int = POOL_K,
    leakage_sample: int = LEAKAGE_SAMPLE,
) -> SettingCheck:
    """Figures of a prepared setting; files that are not there are listed, not an error.

    Args:
        root: prepared folder.
        setting: task lists.
        k: shots of the target files.
        seed: whose files are read.
        pool_k: size in the names of the training files.
        leakage_sample: training examples per task compared with the test sets; 0 for all.
    """
    missing: list[str] = []

    def load(task: str, size: int, part: str) -> list[Example]:
        path = root / task / file_name(task, size, seed, part)
        if not path.is_file() or path.stat().st_size == 0:
            missing.append(str(path.relative_to(root)))
            return []
        return read_examples(path, task)

    train = {task: load(task, pool_k, "train") for task in setting.train}
    test = {task: load(task, k, "test") for task in setting.test}
    present = {task: examples for task, examples in test.items() if examples}
    limit = leakage_sample or None
    sample = {task: list(islice(examples, limit)) for task, examples in train.items()}
    return SettingCheck(
        train=tuple(check_task(task, examples) for task, examples in train.items() if examples),
        test=tuple(check_task(task, examples) for task, examples in present.items()),
        leakage=tuple(overlaps(sample, present)),
        published_overlap=tuple(published_overlap(setting)),
        missing=tuple(missing),
        sampled=leakage_sample,
    )


def _lengths(words: Sequence[int]) -> Lengths:
    values = np.asarray(words)
    return Lengths(
        float(values.mean()), float(np.median(values)), float(np.percentile(values, 95)), int(values.max())
    )


def _task_table(title: str, checks: Sequence[TaskCheck]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("task", overflow="fold")
    for column in (
        "examples",
        "duplicates",
        "conflicts",
        "labels",
        "majority",
        "input words (p95)",
        "output words",
    ):
        table.add_column(column, justify="right")
    for check in checks:
        table.add_row(
            check.task,
            str(check.n),
            str(check.duplicates),
            str(check.conflicts),
            str(len(check.labels) or "-"),
            f"{check.majority_share:.0%}" if check.labels else "-",
            f"{check.input.mean:.0f} ({check.input.p95:.0f})",
            f"{check.output.mean:.1f}",
        )
    return table


def _leakage_table(found: Sequence[Overlap], sampled: int) -> Table:
    scope = f"first {sampled} examples of each training task" if sampled else "all training examples"
    table = Table(title=f"test inputs that occur in training ({scope})", title_justify="left")
    table.add_column("target", overflow="fold")
    for column in ("test", "equal input", "13 words in common"):
        table.add_column(column, justify="right")
    table.add_column("from", overflow="fold")
    for overlap in found:
        if overlap.exact or overlap.ngram:
            sources = ", ".join(f"{task} ({count})" for task, count in overlap.sources[:3])
            table.add_row(overlap.task, str(overlap.n), str(overlap.exact), str(overlap.ngram), sources)
    return table
