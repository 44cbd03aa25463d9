"""What the records of one cell must agree on, and the type of a task that nobody declared."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from metashot.base.errors import DataError
from metashot.data.rows.jsonl import RecordFile
from metashot.data.task import TaskType

_SHOWN = 6
"""Options that a note lists."""


def check_gold(records: RecordFile) -> None:
    """Every output must be one of its options.

    Raises:
        DataError: the first record that breaks the rule, with its line.
    """
    for number, example in enumerate(records.examples):
        if example.options and example.output not in example.options:
            raise DataError(
                records.where(number),
                f"output {example.output!r} is not among its options {list(example.options)!r}",
                "correct the output or the options",
            )


def check_options(
    task: str, test: RecordFile, demonstrations: RecordFile | None, declared: TaskType | None
) -> TaskType:
    """Decide the task's type, and hold a classification task to one label set.

    Without a declared type, one option set for all records means classification, and an option set of their own for
    most records means multi-choice; a few records that differ from a common set are taken for a mistake.

    Args:
        task: task name.
        test: the test records.
        demonstrations: those of the prompt; their options may be left out.
        declared: by `data.task_types` or a recipe.

    Raises:
        DataError: a test record without options among others with some, or a label set that differs between the
            records of a classification task; names file and line.
    """
    if declared is TaskType.FREE_FORM:
        return declared
    with_options = [number for number, example in enumerate(test.examples) if example.options]
    if not with_options and declared is None:
        return TaskType.FREE_FORM
    if len(with_options) < len(test.examples):
        lacking = next(number for number, example in enumerate(test.examples) if not example.options)
        others = "other test records have some" if with_options else f"the task is {declared}"
        raise DataError(
            test.where(lacking),
            f"options is empty, but {others}",
            f"give the record its options, or set {type_override(task, TaskType.FREE_FORM)}",
        )
    if declared is TaskType.MULTI_CHOICE:
        return declared
    files = [test] if demonstrations is None else [test, demonstrations]
    sets = Counter(frozenset(one.options) for file in files for one in file.examples if one.options)
    common, count = sets.most_common(1)[0]
    if len(sets) == 1:
        return TaskType.CLASSIFICATION
    if declared is None and count * 2 <= sets.total():
        return TaskType.MULTI_CHOICE
    raise _other_labels(task, files, common)


def _other_labels(task: str, files: Sequence[RecordFile], common: frozenset[str]) -> DataError:
    """The error for the first record whose options are not the task's."""
    where, options = next(
        (file.where(number), example.options)
        for file in files
        for number, example in enumerate(file.examples)
        if example.options and frozenset(example.options) != common
    )
    return DataError(
        where,
        f"labels {list(options)!r} differ from the task's labels {sorted(common)!r}",
        f"give every record of a classification task the same options, or set {type_override(task, TaskType.MULTI_CHOICE)}",
    )


def type_override(task: str, kind: TaskType) -> str:
    """The argument of `run.py` that declares a task's type; the lines of a config file where none can hold its name."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", task):
        return f"data.task_types.{task}={kind}"
    if re.fullmatch(r"[A-Za-z_][-A-Za-z0-9_ :,{}=()\[\]\\/+.$%*@?|]*", task):
        name = re.sub(r"([ :,{}=()\[\]\\])", r"\\\1", task)
        return f"'data.task_types={{{name}: {kind}}}'"
    return f"{{data: {{task_types: {{{json.dumps(task)}: {kind}}}}}}} in an experiment's file"


def judged_note(task: str, kind: TaskType, options: Sequence[str]) -> str:
    """What to tell the user of a type that was judged by the options: the rule, and the key that changes it."""
    if kind is TaskType.CLASSIFICATION:
        shown = ", ".join(map(repr, sorted(options)[:_SHOWN])) + (", ..." if len(options) > _SHOWN else "")
        return (
            f"task {task!r} is taken for classification and scored by macro-F1, since every record has the options "
            f"{shown}; {type_override(task, TaskType.MULTI_CHOICE)} scores it by accuracy"
        )
    return (
        f"task {task!r} is taken for multi-choice and scored by accuracy, since its records have options of their own; "
        f"{type_override(task, TaskType.CLASSIFICATION)} holds them to one label set"
    )
