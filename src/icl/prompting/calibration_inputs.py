"""Unlabelled training inputs for the calibrations that average over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from metashot.base.errors import DataError
from metashot.data.task import Example, TaskData
from metashot.data.tasks.source import TaskSource
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
    inputs = method.calibration.inputs
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


def _new(rows: Sequence[Example], taken: set[str]) -> list[str]:
    """Different inputs in order, without those that are taken."""
    return [text for text in dict.fromkeys(row.input for row in rows) if text not in taken]


def _rows(read: Callable[[], Sequence[Example]]) -> Sequence[Example]:
    """What is read, or nothing where the source has no such rows."""
    try:
        return read()
    except DataError:
        return ()
