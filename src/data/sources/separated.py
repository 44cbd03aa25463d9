"""CSV and TSV files, read by the standard library's strict reader: what is not well quoted is an error, not a guess."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from metashot.data.errors import DataError
from metashot.data.sources.layout import Row, TableLayout
from metashot.data.sources.text_files import open_text

# Fields may be of any length; the library's limit of 131,072 characters is for the whole process.
csv.field_size_limit(sys.maxsize)

_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
_OTHER_DELIMITERS = {";": ";", "\t": "\\t", "|": "|", ",": ","}
_FAULTS_SHOWN = 4
_ENCODING_REMEDY = "set source.encoding: windows-1252 if it is that"


def separated_rows(path: Path, layout: TableLayout, usual_delimiter: str) -> Iterator[tuple[int, Row]]:
    """(line, row) in file order, in constant memory.

    Double quotes delimit a field that begins with one, inside which they are doubled; anywhere else they are text.

    Raises:
        DataError: a quote that is not closed or is followed by text, with its line; a row with too few or too many
            values; a column name that stands twice; a value that is not of its column's type.
    """
    delimiter = layout.delimiter or usual_delimiter
    strict = layout.quotes == "strict"
    quoting = csv.QUOTE_MINIMAL if strict else csv.QUOTE_NONE
    with open_text(path, newline="", encoding=layout.encoding, remedy=_ENCODING_REMEDY) as stream:
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=strict)
        try:
            header = list(layout.header) or next(reader, [])
            _check_header(path, header, delimiter, layout)
            to_row = _row_maker(path, header, layout)
            width = len(header)
            line = reader.line_num
            for values in reader:
                if values:
                    if len(values) != width:
                        raise _wrong_width(path, line + 1, header, values)
                    yield line + 1, to_row(line + 1, values)
                line = reader.line_num
        except csv.Error as error:
            raise _wrong_quotes(path, layout, delimiter, error, reader.line_num) from error


def _check_header(path: Path, header: Sequence[str], delimiter: str, layout: TableLayout) -> None:
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise DataError(
            f"{path}:1",
            f'two columns are called "{repeated[0]}" ({", ".join(header)})',
            "give every column a name of its own, or name them all in source.header after taking line 1 off",
        )
    if len(header) == 1 and len(layout.columns) > 1:
        other = next((one for one in _OTHER_DELIMITERS if one != delimiter and one in header[0]), None)
        if other is not None:
            shown = _OTHER_DELIMITERS[other]
            raise DataError(
                f"{path}:1",
                f'holds one column, {header[0]!r}: its separator is likely "{shown}"',
                f'set source.delimiter: "{shown}"',
            )


def _row_maker(path: Path, header: list[str], layout: TableLayout) -> Callable[[int, list[str]], Row]:
    convert = {name: to_type for name, to_type in _converters(layout.types or {}).items() if name in header}
    wanted = [name for name in layout.columns if name in header]
    # Columns that the file lacks are left to the recipe, whose error names all that the row has.
    picks = len(wanted) == len(layout.columns) and 1 < len(wanted) < len(header)
    names = wanted if picks else header
    pick = itemgetter(*map(header.index, wanted)) if picks else None

    def to_row(line: int, values: list[str]) -> Row:
        row: Row = dict(zip(names, values if pick is None else pick(values), strict=True))
        for column, to_type in convert.items():
            if column in row:
                try:
                    row[column] = to_type(row[column])
                except ValueError as error:
                    raise DataError(
                        f"{path}:{line}", f'column "{column}" holds {row[column]!r}', str(error)
                    ) from error
        return row

    return to_row


def _converters(types: Mapping[str, str]) -> dict[str, Callable[[str], Any]]:
    known: dict[str, Callable[[str], Any]] = {}
    for column, words in types.items():
        if "number" in words and "list" not in words:
            known[column] = _to_number
        elif words == "true or false":
            known[column] = _to_bool
    return known


def _to_number(text: str) -> int | float | None:
    if text.isdigit():
        return int(text)
    if not text or text.isspace():
        return None
    for kind in (int, float) if "_" not in text else ():
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError("the recipe's fields call it a number: correct the file or call it text")


def _to_bool(text: str) -> bool | None:
    word = text.strip().lower()
    if not word:
        return None
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("write true or false")


def _wrong_width(path: Path, line: int, header: Sequence[str], values: Sequence[str]) -> DataError:
    return DataError(
        f"{path}:{line}",
        f"{len(values)} values for {len(header)} columns ({', '.join(header)})",
        "quote values that hold the separator, or set source.header",
    )


def _wrong_quotes(path: Path, layout: TableLayout, delimiter: str, error: csv.Error, line: int) -> DataError:
    with open_text(path, newline="", encoding=layout.encoding, remedy=_ENCODING_REMEDY) as stream:
        faults = quote_faults(stream, delimiter)
    remedy = (
        "double quotes inside a quoted field, or set source.quotes: none if they are all part of the text"
    )
    if not faults:
        return DataError(f"{path}:{line}", f"broken CSV: {error}", remedy)
    # The one that is never closed swallows rows, so it comes first.
    ordered = sorted(faults, key=lambda fault: not fault[1].startswith("the quote"))
    shown = [f"{path}:{number}: {problem}" for number, problem in ordered[1:_FAULTS_SHOWN]]
    more = len(ordered) - 1 - len(shown)
    others = f"; also {'; '.join(shown)}{f' and {more} more' if more else ''}" if shown else ""
    return DataError(f"{path}:{ordered[0][0]}", ordered[0][1] + others, remedy)


def quote_faults(lines: Iterable[str], delimiter: str) -> list[tuple[int, str]]:
    """(line, fault) of every quote that strict reading refuses; the reading goes on behind each.

    Args:
        lines: with their ends.
        delimiter: between fields.
    """
    faults: list[tuple[int, str]] = []
    opened = 0
    for number, line in enumerate(lines, start=1):
        place = 0
        while place < len(line):
            if opened:
                quote = line.find('"', place)
                if quote < 0:
                    break
                if line.startswith('"', quote + 1):
                    place = quote + 2
                    continue
                start, opened, place = opened, 0, quote + 1
                if line[place : place + 1] not in ("", delimiter, "\r", "\n"):
                    opened_at = "" if start == number else f" that opened on line {start}"
                    text = line[place : place + 20].rstrip()
                    faults.append(
                        (number, f"the text {text!r} follows the closing quote of a field{opened_at}")
                    )
                    place = _next_field(line, delimiter, place)
                elif line[place : place + 1] == delimiter:
                    place += 1
                else:
                    break
            elif line[place] == '"':
                opened, place = number, place + 1
            else:
                place = _next_field(line, delimiter, place)
    if opened:
        faults.append((opened, "the quote that opens a field here is never closed"))
    return faults


def _next_field(line: str, delimiter: str, place: int) -> int:
    found = line.find(delimiter, place)
    return len(line) if found < 0 else found + 1
