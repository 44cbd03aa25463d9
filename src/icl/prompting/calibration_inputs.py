"""Unlabelled training inputs for the calibrations that average over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from metashot.base.errors import ConfigError, DataError
from metashot.data.task import Example, TaskData
from metashot.data.tasks.source import TaskSource
from metashot.engine.metrics.calibrations.domain_context import RULE
from metashot.engine.metrics.rules import CALIBRATIONS
from metashot.icl.prompting.methods import Method


def with_calibration_inputs(data: TaskData, method: Method, source: TaskSource, k: int) -> TaskData:
    """The cell with the inputs that its calibration averages over, where it is one that makes them of training inputs.

    These are the different inputs of the seed's training pool, then, where they do not suffice, of its development rows,
    which neither a demonstration nor a test example has (where that matters); their labels are not kept. What is made of
    them is the calibration's affair; at most `method.calibration_inputs`.

    Raises:
        DataError: there is none.
    """
    inputs = RULE.inputs if method.probes else method.calibration.inputs
    if inputs is None or inputs.draw is None:
        return data
    shown = (data.demonstrations, *data.neighbours, data.test) if inputs.unseen else ()
    taken = {example.input for rows in shown for example in rows}
    pool = _rows(lambda: source.pool(data.task, seed=data.seed))
    found = _new(pool, taken)
    if len(found) < method.calibration_inputs:
        dev = _rows(lambda: source.load(data.task, k=k, seed=data.seed, split="dev").test)
        found = _new([*pool, *dev], taken)
    if not found:
        name = method.calibration.name
        instead = f"{name}_transductive" if f"{name}_transductive" in CALIBRATIONS else "contextual"
        raise DataError(
            data.task,
            f"calibration {name!r} needs training inputs that no demonstration shows; of seed "
            f"{data.seed} there is none",
            f"lower k, prepare more training or development rows, or use method.calibration={instead}",
        )
    return replace(data, unlabelled=tuple(inputs.draw(found, method.calibration_inputs, data.seed)))


def with_labelled_rows(data: TaskData, method: Method, source: TaskSource, k: int) -> TaskData:
    """The cell with the training examples that its method learns from, where it is such a one.

    They are the first `method.labelled_rows` of each answer in the seed's training pool, then in its development rows,
    whose input neither a demonstration nor a test example has.

    Raises:
        ConfigError: a task whose test examples have options of their own, or demonstrations of their own.
        DataError: an answer of which there is none.
    """
    if not method.labelled_rows:
        return data
    options = frozenset(data.test[0].options)
    if any(frozenset(example.options) != options for example in data.test) or data.neighbours:
        raise ConfigError(
            "data.tasks",
            f"{data.task!r} gives each test example {'demonstrations' if data.neighbours else 'options'} of its own, and "
            f"method {method.name!r} learns what all of them share",
            "leave the task out, choose a selection that all test examples share, or use method=direct",
        )
    taken = {example.input for rows in (data.demonstrations, data.test) for example in rows}
    pool = _rows(lambda: source.pool(data.task, seed=data.seed))
    dev = _rows(lambda: source.load(data.task, k=k, seed=data.seed, split="dev").test)
    found: dict[str, list[Example]] = {option: [] for option in data.test[0].options}
    for row in dict.fromkeys((*pool, *dev)):
        rows = found.get(row.output)
        if rows is not None and row.input not in taken and len(rows) < method.labelled_rows:
            rows.append(replace(row, options=data.test[0].options))
    bare = next((option for option, rows in found.items() if not rows), None)
    if bare is not None:
        raise DataError(
            data.task,
            f"method {method.name!r} learns from training examples that no demonstration shows; of seed {data.seed} none "
            f"has the answer {bare!r}",
            "lower k, prepare more training or development rows, or leave the task out",
        )
    return replace(data, labelled=tuple(row for rows in found.values() for row in rows))


def _new(rows: Sequence[Example], taken: set[str]) -> list[str]:
    """Different inputs in order, without those that are taken."""
    return [text for text in dict.fromkeys(row.input for row in rows) if text not in taken]


def _rows(read: Callable[[], Sequence[Example]]) -> Sequence[Example]:
    """What is read, or nothing where the source has no such rows."""
    try:
        return read()
    except DataError:
        return ()
