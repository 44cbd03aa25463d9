"""The data card of a prepared task: what its user should see before anything is run on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table

from metashot.data.preparation.columns import look_at
from metashot.data.recipes.rows import Row
from metashot.data.rows.manifest import RoleRecord

PROMPT_TOKENS = 1024
"""Longest prompt of the published setting (`prompt.max_length`)."""
_CHARACTERS_A_TOKEN = 4
MOST_LABELS = 20
LOOKED_AT = 200_000


@dataclass(slots=True)
class PartCard:
    """Figures of one part of a task, taken in pair by pair; repeats are looked for among the first LOOKED_AT."""

    rows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    input: int = 0
    output: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    _outputs: dict[int, int | None] = field(default_factory=dict[int, "int | None"])
    _pairs: set[int] = field(default_factory=set[int])

    def add(self, text: str, output: str) -> None:
        """Take one example in."""
        self.rows += 1
        self.input += len(text)
        self.output += len(output)
        if len(self.labels) <= MOST_LABELS:
            self.labels[output] += 1
        if self.rows > LOOKED_AT:
            return
        # Digests of 64 bits in the place of texts: two texts that share one are not to be expected.
        key, answer = hash(text), hash(output)
        pair = hash((key, answer))
        self.duplicates += pair in self._pairs
        self._pairs.add(pair)
        if self._outputs.setdefault(key, answer) not in (answer, None):
            self.conflicts += 1
            self._outputs[key] = None

    def as_dict(self) -> dict[str, Any]:
        """For the manifest; lengths are means in characters, labels are left out where there are many."""
        return {
            "rows": self.rows,
            "labels": dict(self.labels.most_common()) if len(self.labels) <= MOST_LABELS else {},
            "duplicates": self.duplicates,
            "conflicts": self.conflicts,
            "input": round(self.input / max(self.rows, 1), 1),
            "output": round(self.output / max(self.rows, 1), 1),
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
