"""Test rows that stand among the demonstrations: found by content, and kept out of their own prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from metashot.data.task import Example, TaskType

Key = tuple[object, ...]


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
        ordered: candidates of each test row, the wanted ones first; the same list may stand for all.
        k: how many; fewer where the candidates run out.
        task_type: decides which rows are the same.
    """
    key = row_key(task_type)
    keys: dict[int, list[Key]] = {}
    kept: list[tuple[Example, ...]] = []
    for example, candidates in zip(test, ordered, strict=True):
        of_candidates = keys.setdefault(id(candidates), [key(one) for one in candidates])
        own = key(example)
        others = [one for one, found in zip(candidates, of_candidates, strict=True) if found != own]
        kept.append(tuple(others[:k]))
    return tuple(kept)


def overlap_note(task: str, n_rows: int, n_test: int, what: str) -> str:
    """What to tell the user."""
    return f"task {task!r}: {n_rows} of {n_test} test rows stand {what}"
