"""Excel files (.xlsx), row by row, read by openpyxl."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metashot.base.errors import DataError, suggestion
from metashot.base.extras import import_extra
from metashot.data.sources.layout import Row, TableLayout


def excel_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(row number in the sheet, row) of one sheet; formulas give the value that was stored, blank rows are passed over.

    Raises:
        DataError: openpyxl is not installed, no Excel file, no such sheet, or a header that lacks or repeats a name.
    """
    openpyxl = import_extra("openpyxl", str(path))
    try:
        book: Any = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(
            str(path), f"is no whole .xlsx file: {error}", "save it again as .xlsx or .csv"
        ) from error
    try:
        if layout.sheet is not None and layout.sheet not in book.sheetnames:
            raise DataError(
                str(path), f'has no sheet "{layout.sheet}"', suggestion(layout.sheet, book.sheetnames)
            )
        sheet = book.worksheets[0] if layout.sheet is None else book[layout.sheet]
        filled = (
            (number, values)
            for number, values in enumerate(sheet.iter_rows(values_only=True), start=1)
            if any(value is not None for value in values)
        )
        header = list(layout.header) if layout.header else _header(path, *next(filled, (1, ())))
        for number, values in filled:
            if any(value is not None for value in values[len(header) :]):
                raise DataError(
                    f"{path}, row {number}",
                    f"{len(values)} values for {len(header)} columns",
                    "name every column",
                )
            yield number, dict(zip(header, [*values, *[None] * len(header)], strict=False))
    finally:
        book.close()


def _header(path: Path, number: int, values: tuple[Any, ...]) -> list[str]:
    while values and values[-1] is None:
        values = values[:-1]
    names = ["" if value is None else str(value) for value in values]
    wrong = [name for name in names if not name.strip() or names.count(name) > 1]
    if wrong:
        problem = f'two columns are called "{wrong[0]}"' if wrong[0].strip() else "a column has no name"
        raise DataError(f"{path}, row {number}", problem, "give every column a name of its own")
    return names
