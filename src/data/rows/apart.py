"""Rows known by their content: test rows among the demonstrations, and test sets that differ between seeds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from metashot.data.task import Example, TaskData, TaskType

Key = tuple[object, ...]
_DIGEST_CHARACTERS = 16


def row_key(task_type: TaskType) -> Callable[[Example], Key]:
    """What makes two rows of a task the same row: the input up to case and blanks, and options of its own."""

    def key(example: Example) -> Key:
        text = " ".join(example.input.casefold().split())
        own = task_type is TaskType.MULTI_CHOICE and bool(example.options)
        return (text, frozenset(example.options)) if own else (text,)

    return key


def shared_rows(test: Sequence[Example], pool: Sequence[Example], task_type: TaskType) -> Counter[Key]:
    """How often each test row stands in the pool; rows without text are passed over."""
    key = row_key(task_type)
    keys = {key(example) for example in test if example.input.strip()}
    return Counter(found for example in pool if (found := key(example)) in keys)


def without_own(
    test: Sequence[Example], ordered: Sequence[Sequence[Example]], k: int, task_type: TaskType
) -> tuple[tuple[Example, ...], ...]:
    """For each test row the first k of its candidates that are not the row itself.

    Args:
        test: test rows.
        ordered: candidates of each test row, the wanted ones first.
        k: how many; fewer where the candidates run out.
        task_type: decides which rows are the same.
    """
    key = row_key(task_type)
    return tuple(
        tuple(one for one in candidates if key(one) != key(example))[:k]
        for example, candidates in zip(test, ordered, strict=True)
    )


def kept_apart(data: TaskData, pool: Callable[[], Sequence[Example]]) -> TaskData:
    """The cell with every test row left out of its own demonstrations, the next ones of the pool in its place.

    Only the prompts of such rows change; the shared demonstrations stay those of all others.

    Args:
        data: a cell with shared demonstrations.
        pool: gives what they were drawn from, in the order of the draw; called only where a test row stands among them.
    """
    shown = data.demonstrations
    own = shared_rows(data.test, shown, data.task_type)
    if not own:
        return data
    drawn = set(shown)
    candidates = (*shown, *(example for example in pool() if example not in drawn))
    key, k = row_key(data.task_type), len(shown)
    apart = {id(row): row for row in data.test if key(row) in own}
    found = without_own(list(apart.values()), [candidates] * len(apart), k, data.task_type)
    instead = dict(zip(apart, found, strict=True))
    fewer = sum(len(row) < k for row in found)
    where = f"among the {k} demonstrations of seed {data.seed}: each is left out of its own"
    short = f", {fewer} of them with fewer than {k}" if fewer else ""
    note = overlap_note(data.task, len(apart), len(data.test), where + short)
    return replace(
        data,
        demonstrations=(),
        neighbours=tuple(instead.get(id(row), shown) for row in data.test),
        notes=(*data.notes, note),
    )


def overlap_note(task: str, n_rows: int, n_test: int, what: str) -> str:
    """What to tell the user."""
    return f"task {task!r}: {n_rows} of {n_test} test rows stand {what}"


def content_digest(data: TaskData) -> str:
    """Digest of a cell's test rows in their order, whatever the labels of a classification task are called."""
    own_options = data.task_type is TaskType.MULTI_CHOICE
    rows = [
        (
            example.input,
            example.options.index(example.output) if example.output in example.options else example.output,
            example.options if own_options else len(example.options),
        )
        for example in data.test
    ]
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()[:_DIGEST_CHARACTERS]
