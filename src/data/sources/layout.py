"""How a table file is to be read."""

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
        header: column names of a CSV or TSV file that has no header line.
        types: column to its type in words (`text`, `number`, `true or false`): CSV and TSV values are converted,
            and blank ones become null.
        columns: the only columns that are needed; empty for all.
    """

    format: str | None = None
    delimiter: str | None = None
    quotes: Literal["strict", "none"] = "strict"
    encoding: str | None = None
    header: tuple[str, ...] = ()
    types: Mapping[str, str] | None = None
    columns: tuple[str, ...] = ()
