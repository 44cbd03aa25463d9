"""Test inputs that the token limit cuts: how many of a task, and by how many tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metashot.engine.cells.results import Result, with_cut_inputs
from metashot.metaprompt.tuning.tasks import TaskRenderer


def lost_tokens(renderer: TaskRenderer, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """By how many tokens each row's context is cut."""
    whole = replace(renderer, limits=replace(renderer.limits, max_tokens=sys.maxsize))
    return [len(whole.example(row).input_ids) - len(renderer.example(row).input_ids) for row in rows]


def cut_note(task: str, cut: int, n: int, tokens: int, limit: int) -> str:
    """What to tell the user of test inputs that are cut.

    Args:
        task: task name.
        cut: test inputs that are cut.
        n: test inputs.
        tokens: what they lose together.
        limit: most tokens of a context.
    """
    return (
        f"task {task!r}: {cut} of {n} test inputs do not fit into tuning.max_tokens={limit} with their pattern and "
        f"are cut by {tokens:,} tokens together; raise it"
    )


def cut_notes(results: Iterable[Result], limit: int) -> list[str]:
    """One sentence for each task of which test inputs were cut."""
    return [
        cut_note(one.task, one.cut_inputs, one.n, one.cut_tokens, limit) for one in with_cut_inputs(results)
    ]
