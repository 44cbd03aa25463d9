"""JSON lines, and JSON arrays of objects, read object by object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from metashot.base.errors import DataError
from metashot.base.json_text import bounded
from metashot.data.sources.layout import Row, TableLayout
from metashot.data.sources.text_files import open_text

_CHUNK_CHARACTERS = 1 << 20
_BLANKS = " \t\r\n"
_ONE_A_LINE = "write one JSON object a line; a list of them is format json"


class RepeatedKey(ValueError):
    """An object that holds a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [key for key, _ in pairs]
        raise RepeatedKey(next(key for key in names if names.count(key) > 1))
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_once)
"""Standard JSON with NaN, and without repeated keys, of which the last would win."""


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
    """(line, row) of an array of objects, in constant memory; a file of JSON lines is read as that."""
    with open_text(path, encoding=layout.encoding) as stream:
        first = _first_character(stream)
        if first == "[":
            yield from _Array(path, stream).rows()
            return
        if first != "{":
            raise DataError(
                str(path),
                f"begins with {first!r}: it is no list of objects" if first else "is empty",
                "write [{...}, ...], or one object a line",
            )
    try:
        yield from json_line_rows(path, layout)
    except DataError as error:
        raise DataError(
            error.where, f"{error.problem} (read as JSON lines, since the file is no list)", error.remedy
        ) from error


def _first_character(stream: TextIO) -> str:
    while (character := stream.read(1)) in _BLANKS and character:
        pass
    return character


class _Array:
    """The objects behind a `[`, decoded out of a buffer that grows only as far as one object needs."""

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path, self._stream = path, stream
        self._text, self._place, self._line = "", 0, 1
        self._ended = False

    def rows(self) -> Iterator[tuple[int, Row]]:
        character = self._next()
        while character != "]":
            line = self._line
            yield line, self._object(line)
            character = self._next()
            if character == ",":
                self._place += 1
                character = self._next()
                if character != "]":
                    continue
            elif character == "]":
                break
            raise self._fault("an object must be followed by a comma or by the closing bracket")
        self._place += 1
        if self._next():
            raise self._fault("text follows the closing bracket")

    def _next(self) -> str:
        """The next character that is no blank, not yet consumed; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _BLANKS:
                self._line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._grow():
                return ""

    def _object(self, line: int) -> Row:
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
            if not isinstance(value, dict):
                raise self._fault(f"holds a {type(value).__name__} among its objects")
            self._line = line + self._text.count("\n", self._place, end)
            self._place = end
            return value

    def _grow(self) -> bool:
        """Read on, giving up what is consumed; False at the end of the file."""
        rest = self._text[self._place :]
        # As much again as is there, so that a long object is decoded a few times only.
        chunk = self._stream.read(max(_CHUNK_CHARACTERS, len(rest)))
        self._text, self._place = rest + chunk, 0
        return bool(chunk)

    def _fault(self, problem: str) -> DataError:
        return DataError(f"{self._path}:{self._line}", problem, "write [{...}, ...], or one object a line")
