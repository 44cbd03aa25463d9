"""The data card of a prepared task: what its user should see before anything is run on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from metashot.data.preparation.checks import check_task
from metashot.data.preparation.columns import look_at
from metashot.data.recipes.rows import Row
from metashot.data.rows.manifest import RoleRecord
from metashot.data.task import Example

PROMPT_TOKENS = 1024
"""Longest prompt of the published setting (`prompt.max_length`)."""
_CHARACTERS_A_TOKEN = 4
_LABELS = 20


def part_card(task: str, examples: Sequence[Example]) -> dict[str, Any]:
    """Figures of one part of a task, for the manifest; lengths are means in characters."""
    found = check_task(task, examples)
    return {
        "rows": found.n,
        "labels": dict(found.labels[:_LABELS]),
        "duplicates": found.duplicates,
        "conflicts": found.conflicts,
        "input": round(sum(len(one.input) for one in examples) / found.n, 1),
        "output": round(sum(len(one.output) for one in examples) / found.n, 1),
    }


def column_card(rows: Iterable[Row], declared: Mapping[str, str]) -> dict[str, str]:
    """Column to what it holds, of those that a recipe declares."""
    return {
        one.name: f"{one.describe()}"
        + (f"; declared {declared[one.name]}" if one.kind != declared[one.name] else "")
        for one in look_at(rows)
        if one.name in declared
    }


def show_card(task: str, record: RoleRecord) -> Group:
    """For the terminal: rows by label, duplicates, conflicts, room for demonstrations, columns and what was left out."""
    parts: dict[str, dict[str, Any]] = record.card.get("parts", {})
    table = Table(title=f"data card: {task}", title_justify="left")
    table.add_column("")
    for part in parts:
        table.add_column(part, justify="right")
    for key, name in (
        ("rows", "rows"),
        ("duplicates", "rows that stand twice"),
        ("conflicts", "inputs with several answers"),
        ("input", "characters of an input"),
        ("output", "characters of an answer"),
    ):
        table.add_row(name, *(f"{one[key]:,}" for one in parts.values()))
    for label in dict.fromkeys(label for one in parts.values() for label in one["labels"]):
        counts = [one["labels"].get(label, 0) for one in parts.values()]
        shares = [
            f"{count} ({count / one['rows']:.0%})" for count, one in zip(counts, parts.values(), strict=True)
        ]
        table.add_row(f"answer {label!r}", *shares)
    lines = [f"  {name}: {text}" for name, text in record.card.get("columns", {}).items()]
    first = next(iter(parts.values()))
    tokens = (first["input"] + first["output"]) / _CHARACTERS_A_TOKEN + 1
    fit = int(PROMPT_TOKENS / tokens) - 1
    lines.append(
        f"  about {max(fit, 0)} demonstrations of mean length fit into {PROMPT_TOKENS:,} tokens (at "
        f"{_CHARACTERS_A_TOKEN} characters a token; stage=plan counts exactly); k={record.k} was asked"
    )
    lines += [f"  {note}" for note in record.notes]
    return Group(table, *lines)
