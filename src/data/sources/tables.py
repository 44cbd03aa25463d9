"""Rows of table files, one at a time, whatever their format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import repeat
from operator import itemgetter
from pathlib import Path

from metashot.base.errors import DataError
from metashot.data.sources.json_files import json_line_rows, json_rows
from metashot.data.sources.layout import Row, TableLayout
from metashot.data.sources.separated import bare_separated_rows, separated_rows, waiting_separated_rows
from metashot.data.sources.text_files import open_text, plain_suffix

FORMATS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "lines",
}
COLUMNAR = ("parquet", "arrow")
"""Formats without lines: their rows are numbered."""
_USUAL_DELIMITERS = {"csv": ",", "tsv": "\t"}


def format_of(path: Path, layout: TableLayout) -> str:
    """The file's format; an ending of compression is passed over.

    Raises:
        DataError: its ending tells nothing and the recipe names no format.
    """
    found = layout.format or FORMATS.get(plain_suffix(path))
    if found is None:
        raise DataError(
            str(path),
            f'cannot tell the format of "{path.suffix}" files',
            f"set source.format to one of {', '.join(sorted(set(FORMATS.values())))}",
        )
    return found


def read_rows(path: Path, layout: TableLayout) -> Iterator[Row]:
    """Rows in file order, in constant memory.

    Raises:
        DataError: missing file or broken content, with the line where that is known.
    """
    usual = _USUAL_DELIMITERS.get(format_of(path, layout))
    if usual is not None and path.is_file():
        return bare_separated_rows(path, layout, usual)
    return map(itemgetter(1), numbered_rows(path, layout))


def numbered_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(line on which it begins, row) in file order; columnar formats have row numbers from 1.

    Raises:
        DataError: as `read_rows`.
    """
    if not path.is_file():
        raise DataError(str(path), "no such file", "check source.files, data.raw and the file's name")
    reader: Callable[[Path, TableLayout], Iterator[tuple[int, Row]]] = {
        "parquet": _columnar,
        "arrow": _columnar,
        **{name: partial(separated_rows, usual_delimiter=usual) for name, usual in _USUAL_DELIMITERS.items()},
        "jsonl": json_line_rows,
        "json": json_rows,
        "lines": _lines,
    }[format_of(path, layout)]
    return reader(path, layout)


def waiting_rows(path: Path, layout: TableLayout) -> Iterator[Callable[[], Row]]:
    """The rows of `read_rows`, of a file that was read through before.

    Those of CSV and TSV files are made when they are called, so that passing over one costs little.
    """
    usual = _USUAL_DELIMITERS.get(format_of(path, layout))
    if usual is not None:
        return waiting_separated_rows(path, layout, usual)
    return map(partial, repeat(_itself), read_rows(path, layout))


def _itself(row: Row) -> Row:
    return row


def row_places(path: Path, layout: TableLayout, indices: Collection[int]) -> dict[int, str]:
    """Where rows stand, as `file:line` or, without lines, `file, row n`; reads the file up to the last of them."""
    if not indices:
        return {}
    joint = ", row " if format_of(path, layout) in COLUMNAR else ":"
    places: dict[int, str] = {}
    for index, (number, _) in enumerate(numbered_rows(path, layout)):
        if index in indices:
            places[index] = f"{path}{joint}{number}"
            if len(places) == len(indices):
                break
    return places


def _columnar(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    # Imported when such a file is read: arrow takes a while to load.
    from metashot.data.sources import columnar

    is_parquet = format_of(path, layout) == "parquet"
    return (columnar.parquet_rows if is_parquet else columnar.arrow_rows)(path, layout)


def _lines(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    # Universal newlines, as the released code reads: a lone carriage return ends a line too.
    with open_text(path, newline=None, encoding=layout.encoding) as stream:
        for number, line in enumerate(stream, start=1):
            yield number, {"line": line.removesuffix("\n")}
