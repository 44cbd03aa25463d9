"""Tables as console text, Markdown and CSV; LaTeX is in `latex.py`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table as ConsoleTable
from rich.text import Text

from metashot.base.terminal import printable
from metashot.engine.report.tables.table import Table, TableCell

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\.?\d[^=@()!]*$")


def console(table: Table) -> Group:
    """The table for a terminal. Its note is no caption, which would be as narrow as the table."""
    shown = ConsoleTable(title=Text(printable(table.title)), title_justify="left")
    for place, name in enumerate(table.heads):
        shown.add_column(name, justify="left" if place < table.n_labels else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(printable(cell.text), style="bold" if cell.best else "") for cell in row))
    return Group(shown, Text(table.note, style="table.caption"), "")


def markdown(tables: Sequence[Table], problems: Sequence[str], title: str = "Report") -> str:
    """All tables as one Markdown page."""
    parts = [f"# {title}", *(_problems_markdown(problems))]
    for table in tables:
        heads = [_cell_markdown(TableCell(name)) for name in table.heads]
        rule = ["---" if place < table.n_labels else "---:" for place in range(len(heads))]
        lines = [_line(heads), _line(rule)]
        lines += [_line([_cell_markdown(cell) for cell in row]) for row in table.rows]
        parts += [f"## {table.title}", "\n".join(lines), table.note]
    return "\n\n".join(parts) + "\n"


def _problems_markdown(problems: Sequence[str]) -> list[str]:
    return ["## Problems", "\n".join(f"- {problem}" for problem in problems)] if problems else []


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell_markdown(cell: TableCell) -> str:
    text = cell.text.replace("|", r"\|").replace("\n", " ")
    return f"**{text}**" if cell.best else text


def _no_formula(text: str) -> str:
    """The text, quoted where a spreadsheet would compute it; numbers with their sign stay."""
    return f"'{text}" if text[:1] in _FORMULA_STARTS and not _NUMBER.match(text) else text


def comma_separated(table: Table) -> str:
    """The table as CSV; a cell with a number gives it in full, followed by the text as shown.

    Number columns become two: `<name>` with the value and `<name> (shown)` with the text.
    """
    numeric = [any(row[place].value is not None for row in table.rows) for place in range(len(table.columns))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        part
        for name, number in zip(table.heads, numeric, strict=True)
        for part in map(_no_formula, (name, f"{name} (shown)") if number else (name,))
    )
    for row in table.rows:
        writer.writerow(
            part
            for cell, number in zip(row, numeric, strict=True)
            for part in (
                ("" if cell.value is None else repr(cell.value), _no_formula(cell.text))
                if number
                else (_no_formula(cell.text),)
            )
        )
    return text.getvalue()
