"""JSON lines, and JSON arrays of objects, read object by object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from metashot.base.errors import DataError, suggestion
from metashot.base.json_text import bounded
from metashot.data.sources.layout import Row, TableLayout, WrittenNumber, WrittenTruth
from metashot.data.sources.text_files import open_text

_CHUNK_CHARACTERS = 1 << 20
_BLANKS = " \t\r\n"
_AS_LIST = "write [{...}, ...], or one object a line"
_ONE_A_LINE = "write one JSON object a line; a list of them is format json"


class RepeatedKey(ValueError):
    """An object that holds a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [key for key, _ in pairs]
        raise RepeatedKey(next(key for key in names if names.count(key) > 1))
    for key, value in pairs:
        if value is True or value is False or value.__class__ is list:
            made[key] = _written(value)
    return made


def _written(value: Any) -> Any:
    if value is True or value is False:
        return WrittenTruth(value)
    return [_written(item) for item in value] if value.__class__ is list else value


def _float(text: str) -> float:
    value = float(text)
    return value if repr(value) == text else WrittenNumber(text)


def _integer(text: str) -> int | float:
    return int(text) if text != "-0" else WrittenNumber(text)


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_float, parse_int=_integer)
"""Standard JSON with NaN, without repeated keys, of which the last would win; values keep how they are written."""


def parse_object(text: str, where: str) -> Row:
    """One line as an object.

    Raises:
        DataError: it is no JSON, no object, holds a key twice or is nested too deeply.
    """
    try:
        with bounded():
            value = DECODER.decode(text.strip(_BLANKS))
    except json.JSONDecodeError as error:
        if text.lstrip(_BLANKS).startswith("["):
            raise DataError(where, "begins a list", _ONE_A_LINE) from error
        problem = f"malformed JSON: {error.msg} at column {error.colno}"
        raise DataError(where, problem, "write one JSON object a line") from error
    except RepeatedKey as error:
        raise DataError(where, f'the key "{error}" stands twice in an object', "keep one of them") from error
    except ValueError as error:
        raise DataError(where, str(error), "correct the record") from None
    if not isinstance(value, dict):
        raise DataError(where, f"a record must be an object, got {type(value).__name__}", _ONE_A_LINE)
    return value


def json_line_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(line, row) of JSON lines; blank lines are counted and passed over."""
    with open_text(path, encoding=layout.encoding) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip(_BLANKS):
                yield number, parse_object(line, f"{path}:{number}")


def json_rows(path: Path, layout: TableLayout) -> Iterator[tuple[int, Row]]:
    """(line, row) of an array of objects, in constant memory; a file of JSON lines is read as that.

    With `layout.field` the array stands under this key of the file's one object: `{"data": [...]}`.
    """
    with open_text(path, encoding=layout.encoding) as stream:
        reader = _Reader(path, stream)
        if layout.field is not None:
            reader.enter(layout.field)
            yield from reader.rows(is_whole=False)
            return
        first = reader.next()
        if first == "[":
            yield from reader.rows(is_whole=True)
            return
        if first != "{":
            raise DataError(
                str(path),
                f"begins with {first!r}: it is no list of objects" if first else "is empty",
                "write [{...}, ...], or one object a line",
            )
    try:
        for number, row in json_line_rows(path, layout):
            if layout.columns and not layout.picked(row) and (field := _field_of(row)):
                raise DataError(
                    f"{path}:{number}", "is an object that holds the rows", f"set source.field: {field}"
                )
            yield number, row
    except DataError as error:
        if "malformed" not in error.problem:
            raise
        field = _likely_field(path, layout)
        raise DataError(
            error.where,
            f"{error.problem} (read as JSON lines, since the file is no list)",
            f"set source.field: {field}" if field else error.remedy,
        ) from error


def _field_of(value: Any) -> str | None:
    """The key under which an object holds a list of objects."""
    lists = [
        key for key, held in value.items() if isinstance(held, list) and held and isinstance(held[0], dict)
    ]
    return lists[0] if len(lists) == 1 else None


def _likely_field(path: Path, layout: TableLayout) -> str | None:
    with open_text(path, encoding=layout.encoding) as stream:
        try:
            value = DECODER.decode(stream.read())
        except (ValueError, RecursionError):
            return None
    return _field_of(value) if isinstance(value, dict) else None


class _Reader:
    """The values of a JSON text, decoded out of a buffer that grows only as far as one value needs."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path, self._stream = path, stream
        self._text, self._place, self._line = "", 0, 1

    def enter(self, field: str) -> None:
        """Go on to the value at a dotted path of keys.

        Raises:
            DataError: there is no such key, or an object is none.
        """
        for key in field.split("."):
            if self.next() != "{":
                raise self._fault(f'holds no object in which "{key}" of source.field could stand')
            self._place += 1
            found: list[str] = []
            while self.next() == '"':
                found.append(str(self._value()))
                if self.next() != ":":
                    raise self._fault("a key must be followed by a colon")
                self._place += 1
                if found[-1] == key:
                    break
                self._value()
                if self.next() == ",":
                    self._place += 1
            if not found or found[-1] != key:
                raise DataError(str(self._path), f'holds no "{key}" (source.field)', suggestion(key, found))

    def rows(self, is_whole: bool) -> Iterator[tuple[int, Row]]:
        """The objects of the list that comes next; with `is_whole` nothing may stand behind it."""
        if self.next() != "[":
            raise self._fault("the value is no list of objects")
        self._place += 1
        character = self.next()
        while character != "]":
            line = self._line
            row = self._value()
            if not isinstance(row, dict):
                raise DataError(
                    f"{self._path}:{line}", f"holds a {type(row).__name__} among its objects", _AS_LIST
                )
            yield line, row
            character = self.next()
            if character == ",":
                self._place += 1
                character = self.next()
                if character != "]":
                    continue
            elif character == "]":
                break
            raise self._fault("an object must be followed by a comma or by the closing bracket")
        self._place += 1
        if is_whole and self.next():
            raise self._fault("text follows the closing bracket")

    def next(self) -> str:
        """The next character that is no blank, not yet consumed; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _BLANKS:
                self._line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._grow():
                return ""

    def _value(self) -> Any:
        """The value that comes next, consumed."""
        self.next()
        while True:
            try:
                with bounded():
                    value, end = DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                is_cut = error.pos >= len(self._text) - 8 or error.msg.startswith("Unterminated string")
                if is_cut and self._grow():
                    continue
                self._line += self._text.count("\n", self._place, error.pos)
                raise self._fault(f"malformed JSON: {error.msg}") from error
            except RepeatedKey as error:
                raise self._fault(f'the key "{error}" stands twice in an object') from error
            except ValueError as error:
                raise self._fault(str(error)) from None
            if end == len(self._text) and not isinstance(value, dict | list | str) and self._grow():
                continue  # a number may go on in what was not read yet
            self._line += self._text.count("\n", self._place, end)
            self._place = end
            return value

    def _grow(self) -> bool:
        """Read on, giving up what is consumed; False at the end of the file."""
        rest = self._text[self._place :]
        # As much again as is there, so that a long value is decoded a few times only.
        chunk = self._stream.read(max(_CHUNK_CHARACTERS, len(rest)))
        self._text, self._place = rest + chunk, 0
        return bool(chunk)

    def _fault(self, problem: str) -> DataError:
        return DataError(f"{self._path}:{self._line}", problem, _AS_LIST)
