"""How a table file is to be read, and the values of a row that know how the file writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableLayout:
    """What a recipe says about its files.

    Attributes:
        format: a name of `tables.FORMATS`; None goes by the file's ending.
        delimiter: of CSV and TSV files; None for their usual one.
        quotes: `strict` lets double quotes delimit fields of CSV and TSV files, `none` takes them for text.
        encoding: of text files; None reads UTF-8, or what a byte-order mark says.
        header: column names of a CSV, TSV or Excel file that has no header line.
        sheet: of an Excel file; None for its first.
        field: where the rows stand in a JSON file that is one object, `data` or `data.rows`; None for the file itself.
        any_line_end: a lone carriage return ends a line of a CSV or TSV file too, as the released code reads; else it is
            an error.
        columns: the only columns that are needed, or paths into them; empty for all.
    """

    format: str | None = None
    delimiter: str | None = None
    quotes: Literal["strict", "none"] = "strict"
    encoding: str | None = None
    header: tuple[str, ...] = ()
    sheet: str | None = None
    field: str | None = None
    any_line_end: bool = False
    columns: tuple[str, ...] = ()

    def picked(self, present: Mapping[str, Any] | list[str]) -> list[str]:
        """The columns of a file to read: all where one is missing, so that the recipe's error can name what is there."""
        found = [column_of(path, present) for path in self.columns]
        return [] if None in found else list(dict.fromkeys(name for name in found if name is not None))


def column_of(path: str, present: Mapping[str, Any] | list[str]) -> str | None:
    """The column that a path starts with, the longest name first: `a.b` for `a.b.c` where a file has `a` and `a.b`."""
    while path not in present:
        path, dot, _ = path.rpartition(".")
        if not dot:
            return None
    return path


class WrittenNumber(float):
    """A number of a JSON file that Python would write otherwise: 1.10, 1E5, -0; its text is that of the file."""

    __slots__ = ("_text",)

    def __new__(cls, text: str) -> WrittenNumber:
        """The number that `text` writes."""
        made = super().__new__(cls, text)
        made._text = text
        return made

    def __str__(self) -> str:
        return self._text


class WrittenTruth(int):
    """`true` or `false` of a JSON file: 1 or 0 as a number, and written as the file writes it."""

    __slots__ = ()

    def __str__(self) -> str:
        return "true" if self else "false"


class ClassNumber(int):
    """A label of a file that carries the names of its classes: a number, written as the class's name."""

    name: str

    def __new__(cls, number: int, name: str) -> ClassNumber:
        """Class `number`, called `name`."""
        made = super().__new__(cls, number)
        made.name = name
        return made

    def __str__(self) -> str:
        return self.name
