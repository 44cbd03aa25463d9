"""Rows of table files, one at a time, whatever their format: the one registry of formats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

from metashot.base.errors import DataError
from metashot.data.sources.excel import excel_rows
from metashot.data.sources.json_files import json_line_rows, json_rows
from metashot.data.sources.layout import Row, TableLayout
from metashot.data.sources.separated import separated_rows
from metashot.data.sources.text_files import COMPRESSIONS, open_text, plain_suffix


@dataclass(frozen=True, slots=True)
class Format:
    """A table format; one entry of `FORMATS` is all that a further one needs.

    Attributes:
        name: what `source.format` calls it.
        endings: of its files, in lower case.
        read: (path, layout) -> (line or number from 1, row) in file order, in constant memory.
        has_lines: whether the numbers are lines of the file; else they count its rows.
        is_text: whether its files may be compressed and in any encoding.
        class_names: path -> column to class names in number order, where files carry them.
    """

    name: str
    endings: tuple[str, ...]
    read: Callable[[Path, TableLayout], Iterator[tuple[int, Row]]]
    has_lines: bool = True
    is_text: bool = True
    class_names: Callable[[Path], dict[str, list[str]]] | None = None


# Imported when such a file is read: arrow takes a while to load.
def _parquet(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    from metashot.data.sources.columnar import parquet_rows

    return parquet_rows(path, layout)


def _arrow(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    from metashot.data.sources.columnar import arrow_rows

    return arrow_rows(path, layout)


def _class_names(path: Path) -> dict[str, list[str]]:
    from metashot.data.sources.columnar import class_names

    return class_names(path)


def _lines(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    # Universal newlines, as the released code reads: a lone carriage return ends a line too.
    with open_text(path, newline=None, encoding=layout.encoding) as stream:
        for number, line in enumerate(stream, start=1):
            yield number, {"line": line.removesuffix("\n")}


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("parquet", (".parquet",), _parquet, False, False, _class_names),
        Format("arrow", (".arrow", ".feather"), _arrow, False, False, _class_names),
        Format("jsonl", (".jsonl", ".ndjson"), json_line_rows),
        Format("json", (".json",), json_rows),
        Format("csv", (".csv",), partial(separated_rows, usual_delimiter=",")),
        Format("tsv", (".tsv", ".tab"), partial(separated_rows, usual_delimiter="\t")),
        Format("excel", (".xlsx", ".xlsm"), excel_rows, False, False),
        Format("lines", (".txt",), _lines),
    )
}
ENDINGS = tuple(
    ending + compression
    for one in FORMATS.values()
    if one.name != "lines"
    for ending in one.endings
    for compression in ("", *(COMPRESSIONS if one.is_text else ()))
)
"""Endings of all files with columns, compressed ones included."""


def format_of(path: Path, layout: TableLayout) -> Format:
    """The file's format; an ending of compression is passed over.

    Raises:
        DataError: its ending tells nothing and the recipe names no format.
    """
    if layout.format is not None:
        return FORMATS[layout.format]
    ending = plain_suffix(path)
    found = next((one for one in FORMATS.values() if ending in one.endings), None)
    if found is None:
        raise DataError(
            str(path),
            f'cannot tell the format of "{path.suffix}" files',
            f"set source.format to one of {', '.join(sorted(FORMATS))}",
        )
    return found


def is_table(path: Path) -> bool:
    """Whether a file's ending is that of a table with columns."""
    return path.name.lower().endswith(ENDINGS)


def read_rows(path: Path, layout: TableLayout | None = None) -> Iterator[Row]:
    """Rows in file order, in constant memory.

    Raises:
        DataError: missing file or broken content, with the line where that is known.
    """
    return map(itemgetter(1), numbered_rows(path, layout))


def numbered_rows(path: Path, layout: TableLayout | None = None) -> Iterator[tuple[int, Row]]:
    """(line on which it begins, row) in file order; formats without lines have row numbers from 1.

    Raises:
        DataError: as `read_rows`.
    """
    if not path.is_file():
        raise DataError(str(path), "no such file", "check source.files, data.raw and the file's name")
    layout = layout or TableLayout()
    return format_of(path, layout).read(path, layout)


def row_place(path: Path, number: int, layout: TableLayout | None = None) -> str:
    """Where the row with this number of `numbered_rows` stands, for messages: `file:line` or `file, row n`."""
    return f"{path}{':' if format_of(path, layout or TableLayout()).has_lines else ', row '}{number}"


def row_places(path: Path, layout: TableLayout, indices: Collection[int]) -> dict[int, str]:
    """`row_place` of the rows with these places in the file, from 0; reads the file up to the last of them."""
    places: dict[int, str] = {}
    if indices:
        for index, (number, _) in enumerate(numbered_rows(path, layout)):
            if index in indices:
                places[index] = row_place(path, number, layout)
                if len(places) == len(indices):
                    break
    return places
