"""What a table's columns hold: type, filled and distinct values, lengths; for drafts of recipes and for data cards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metashot.data.recipes.rows import Row
from metashot.data.recipes.twins import is_void, number_of
from metashot.data.sources.layout import ClassNumber, WrittenTruth

MOST_VALUES = 50
"""Distinct values that are counted one by one; a column with more is no column of labels."""
_TRUTH = frozenset({"true", "false"})
_SHOWN_CHARACTERS = 40


@dataclass(slots=True)
class Column:
    """One column, as far as it was read.

    Attributes:
        name: of the column; members of structs are columns called `meta.lang`.
        n: rows that have it.
        void: rows in which it is null, NaN or blank.
        kinds: how many values are lists, numbers, truth values and texts.
        values: how often each text of a value occurs; empty where there are more than MOST_VALUES.
        characters: length of all texts together.
        longest: length of the longest text.
        example: the first filled value, shortened.
    """

    name: str
    n: int = 0
    void: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    longest: int = 0
    example: str = ""
    _many: bool = False
    _plain: bool = True

    def add(self, value: Any) -> None:
        """Take one value in."""
        self.n += 1
        if is_void(value) or (isinstance(value, str) and not value.strip()):
            self.void += 1
            return
        text = str(value)
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode("utf-8")
        self.kinds[_kind(value)] += 1
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        self.example = self.example or (
            text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
        )
        if _kind(value) == "number" and isinstance(value, str) and str(number_of(value)) != value:
            self._plain = False
        if not self._many:
            self.values[text] += 1
            if len(self.values) > MOST_VALUES:
                self._many = True
                self.values.clear()

    @property
    def kind(self) -> str:
        """`list of texts`, `number`, `true or false` or `text`, as a recipe's `fields` call it."""
        kinds = set(self.kinds)
        if kinds == {"list"}:
            return "list of texts"
        if kinds <= {"number", "true or false"} and kinds and self._plain:
            return "number" if "number" in kinds else "true or false"
        return "text"

    @property
    def filled(self) -> int:
        """Rows with a value."""
        return self.n - self.void

    @property
    def mean(self) -> float:
        """Mean length of a filled value in characters."""
        return self.characters / max(self.filled, 1)

    def describe(self) -> str:
        """`text, 2 values (no, yes), 12 characters, 3 of 100 blank`."""
        parts = [self.kind]
        if self.values:
            shown = ", ".join(list(self.values)[:4]) if self.mean <= _SHOWN_CHARACTERS / 2 else ""
            more = ", ..." if len(self.values) > 4 else ""
            parts.append(f"{len(self.values)} values" + (f" ({shown}{more})" if shown else ""))
        parts.append(f"{self.mean:.0f} characters")
        if self.void:
            parts.append(f"{self.void} of {self.n} blank")
        return ", ".join(parts)


def look_at(rows: Iterable[Row]) -> list[Column]:
    """The columns of some rows, in the order in which they appear; a struct's members are columns of their own."""
    columns: dict[str, Column] = {}
    for row in rows:
        for name, value in _flat(row):
            columns.setdefault(name, Column(name)).add(value)
    return list(columns.values())


def _flat(row: Row, before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _kind(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "list"
    if isinstance(value, ClassNumber):
        return "text"
    if isinstance(value, bool | WrittenTruth) or (isinstance(value, str) and value.strip().lower() in _TRUTH):
        return "true or false"
    return "text" if number_of(value) is None else "number"
