"""CSV and TSV files, read by the standard library's strict reader: what is not well quoted is an error, not a guess."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, repeat
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metashot.base.errors import DataError
from metashot.data.sources.layout import Row, TableLayout
from metashot.data.sources.text_files import open_text

if TYPE_CHECKING:
    from _csv import Reader as _Reader

# Fields may be of any length; the library's limit of 131,072 characters is for the whole process.
csv.field_size_limit(sys.maxsize)

_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
_OTHER_DELIMITERS = {";": ";", "\t": "\\t", "|": "|", ",": ","}
_FAULTS_SHOWN = 4
_AT_ONCE = 64
_CHARACTERS_SHOWN = 60
_MOST_DIGITS = 4000
_ENCODING_REMEDY = "set source.encoding: windows-1252 if it is that"


def separated_rows(path: Path, layout: TableLayout, usual_delimiter: str) -> Iterator[tuple[int, Row]]:
    """(line, row) in file order, in constant memory.

    Double quotes delimit a field that begins with one, inside which they are doubled; anywhere else they are text.

    Raises:
        DataError: a quote that is not closed or is followed by text, with its line; a row with too few or too many
            values; a column name that stands twice; a value that is not of its column's type.
    """
    with _opened(path, layout, usual_delimiter) as (reader, columns):
        line = reader.line_num
        for values in reader:
            if values:
                if len(values) != len(columns.header):
                    raise _wrong_width(path, line + 1, columns.header, values)
                try:
                    row = columns.row(values)
                except WrongValue as fault:
                    raise DataError(f"{path}:{line + 1}", fault.problem, fault.remedy) from fault
                yield line + 1, row
            line = reader.line_num


def bare_separated_rows(path: Path, layout: TableLayout, usual_delimiter: str) -> Iterator[Row]:
    """The rows of `separated_rows` without their lines, many taken and converted at once: two thirds of its time.

    Where one is at fault they are read one by one from there, so that the error and the rows before it are the same.
    """
    done = 0
    with _opened(path, layout, usual_delimiter) as (reader, columns), suppress(ValueError, csv.Error):
        filled = filter(None, reader)
        while values := list(islice(filled, _AT_ONCE)):
            yield from columns.rows(values)
            done += len(values)
        return
    yield from map(itemgetter(1), islice(separated_rows(path, layout, usual_delimiter), done, None))


def waiting_separated_rows(
    path: Path, layout: TableLayout, usual_delimiter: str
) -> Iterator[Callable[[], Row]]:
    """The rows of `separated_rows`, each made when it is called, of a file that was read through before."""
    with _opened(path, layout, usual_delimiter) as (reader, columns):
        yield from map(partial, repeat(columns.row), filter(None, reader))


@contextmanager
def _opened(
    path: Path, layout: TableLayout, usual_delimiter: str
) -> Generator[tuple[_Reader, _Columns], None, None]:
    """The reader behind the header and the columns; what it finds at fault inside the block is an error."""
    delimiter = layout.delimiter or usual_delimiter
    strict = layout.quotes == "strict"
    quoting = csv.QUOTE_MINIMAL if strict else csv.QUOTE_NONE
    with open_text(path, newline="", encoding=layout.encoding, remedy=_ENCODING_REMEDY) as stream:
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=strict)
        try:
            header = list(layout.header) or next(reader, [])
            _check_header(path, header, delimiter, layout)
            yield reader, _Columns(header, layout)
        except csv.Error as error:
            raise _wrong_quotes(path, layout, delimiter, error, reader.line_num) from error


class WrongValue(ValueError):
    """A value that is not of its column's type."""

    def __init__(self, column: str, value: str, remedy: str) -> None:
        shown = value if len(value) <= _CHARACTERS_SHOWN else f"{value[:_CHARACTERS_SHOWN]}..."
        self.problem, self.remedy = f'column "{column}" holds {shown!r}', remedy
        super().__init__(self.problem)


class _Columns:
    """The header, and which of its columns become a row, as which type."""

    def __init__(self, header: list[str], layout: TableLayout) -> None:
        self.header = header
        wanted = [name for name in layout.columns if name in header]
        # Columns that the file lacks are left to the recipe, whose error names all that the row has.
        picks = len(wanted) == len(layout.columns) and 1 < len(wanted) < len(header)
        self._names = wanted if picks else header
        self._places = [header.index(name) for name in self._names]
        self._pick = itemgetter(*self._places) if picks else None
        converters = dict(_converters(layout.types or {}))
        self._converters = [
            (place, name, converters[name]) for place, name in enumerate(self._names) if name in converters
        ]

    def row(self, values: list[str]) -> Row:
        """One row of as many values as the header has; raises `WrongValue`."""
        row: Row = dict(zip(self._names, values if self._pick is None else self._pick(values), strict=True))
        for _, column, to_type in self._converters:
            try:
                row[column] = to_type(row[column])
            except ValueError as error:
                raise WrongValue(column, row[column], str(error)) from error
        return row

    def rows(self, many: list[list[str]]) -> Iterator[Row]:
        """Many rows; raises some ValueError, before the first, where `row` would for one or widths differ."""
        found = list(zip(*many, strict=True))
        if len(found) != len(self.header):
            raise ValueError("rows are wider or narrower than the header")
        columns: list[Sequence[Any]] = [found[place] for place in self._places]
        for place, _, to_type in self._converters:
            columns[place] = list(map(to_type, columns[place]))
        return map(dict, map(zip, repeat(self._names), zip(*columns, strict=True)))


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


def _converters(types: Mapping[str, str]) -> Iterator[tuple[str, Callable[[str], Any]]]:
    for column, words in types.items():
        if "number" in words and "list" not in words:
            yield column, _to_number
        elif words == "true or false":
            yield column, _to_bool


def _to_number(text: str) -> int | float | None:
    if text.isdecimal() and len(text) <= _MOST_DIGITS:
        return int(text)
    if not text or text.isspace():
        return None
    for kind in (int, float) if "_" not in text and len(text) <= _MOST_DIGITS else ():
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
