"""CSV and TSV files, read by the standard library's strict reader: what is not well quoted is an error, not a guess."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from metashot.base.errors import DataError
from metashot.data.sources.layout import Row, TableLayout
from metashot.data.sources.text_files import open_text

# Fields may be of any length; the library's limit of 131,072 characters is for the whole process.
csv.field_size_limit(sys.maxsize)

_OTHER_DELIMITERS = {";": ";", "\t": "\\t", "|": "|", ",": ","}
_FAULTS_SHOWN = 4
_ENCODING_REMEDY = "set source.encoding: windows-1252 if it is that"
_QUOTE_REMEDY = (
    "double quotes inside a quoted field, or set source.quotes: none if they are all part of the text"
)
_RETURN_REMEDY = "quote the fields that hold line ends, or take the carriage return out"


def separated_rows(path: Path, layout: TableLayout, usual_delimiter: str) -> Iterator[tuple[int, Row]]:
    """(line, row of texts) in file order, in constant memory.

    Double quotes delimit a field that begins with one, inside which they are doubled; anywhere else they are text.
    Lines end as the header does.

    Raises:
        DataError: a quote that is not closed or is followed by text, or a carriage return outside quotes, with its
            line; a row with too few or too many values; a column name that stands twice.
    """
    delimiter = layout.delimiter or usual_delimiter
    strict = layout.quotes == "strict"
    quoting = csv.QUOTE_MINIMAL if strict else csv.QUOTE_NONE
    newline, stray = _line_end(path, layout)
    with open_text(path, newline=newline, encoding=layout.encoding, remedy=_ENCODING_REMEDY) as stream:
        last = [""]
        reader = csv.reader(_watched(stream, last), delimiter=delimiter, quoting=quoting, strict=strict)
        line = 0
        try:
            header = list(layout.header) or next(reader, [])
            _check_header(path, header, delimiter, layout)
            names = layout.picked(header) or header
            # `itemgetter` of one place gives no tuple; such a row is cheap as it is.
            pick = itemgetter(*map(header.index, names)) if 1 < len(names) < len(header) else None
            names = header if pick is None else names
            line = reader.line_num
            for values in reader:
                if last[0].endswith(stray):
                    raise DataError(
                        f"{path}:{reader.line_num}",
                        "ends with a carriage return, unlike the first line: it may belong to the last field",
                        _RETURN_REMEDY,
                    )
                if values:
                    if len(values) != len(header):
                        raise _wrong_width(path, line + 1, header, values)
                    yield line + 1, dict(zip(names, values if pick is None else pick(values), strict=True))
                line = reader.line_num
        except csv.Error as error:
            if "new-line character" in str(error):
                raise DataError(
                    f"{path}:{reader.line_num}", "holds a carriage return outside quotes", _RETURN_REMEDY
                ) from error
            raise _wrong_quotes(path, layout, newline, delimiter, error, reader.line_num) from error


def _line_end(path: Path, layout: TableLayout) -> tuple[str, tuple[str, ...]]:
    """What the first line ends with, for `open_text`, and the ends that no other line may then have."""
    if layout.any_line_end:
        return "", ()
    with open_text(path, newline="", encoding=layout.encoding, remedy=_ENCODING_REMEDY) as stream:
        first = stream.readline()
    if first.endswith("\r"):
        return "\r", ("\n",)
    return "\n", ("\r\r\n", "\r") if first.endswith("\r\n") else ("\r\n", "\r")


def _watched(lines: Iterable[str], last: list[str]) -> Iterator[str]:
    """The lines, each left in `last` as it goes by: only the last line of a row ends the row."""
    for line in lines:
        last[0] = line
        yield line


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


def _wrong_width(path: Path, line: int, header: Sequence[str], values: Sequence[str]) -> DataError:
    return DataError(
        f"{path}:{line}",
        f"{len(values)} values for {len(header)} columns ({', '.join(header)})",
        "quote values that hold the separator, or set source.header",
    )


def _wrong_quotes(
    path: Path, layout: TableLayout, newline: str, delimiter: str, error: csv.Error, line: int
) -> DataError:
    with open_text(path, newline=newline, encoding=layout.encoding, remedy=_ENCODING_REMEDY) as stream:
        faults = quote_faults(stream, delimiter)
    if not faults:
        return DataError(f"{path}:{line}", f"broken CSV: {error}", _QUOTE_REMEDY)
    # The one that is never closed swallows rows, so it comes first.
    ordered = sorted(faults, key=lambda fault: not fault[1].startswith("the quote"))
    shown = [f"{path}:{number}: {problem}" for number, problem in ordered[1:_FAULTS_SHOWN]]
    more = len(ordered) - 1 - len(shown)
    others = f"; also {'; '.join(shown)}{f' and {more} more' if more else ''}" if shown else ""
    return DataError(f"{path}:{ordered[0][0]}", ordered[0][1] + others, _QUOTE_REMEDY)


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
