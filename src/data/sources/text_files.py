"""Text files as people have them: compressed or not, with or without a byte-order mark, read as a stream."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO, cast

from metashot.base.errors import DataError

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
"""Endings that may stand behind the ending that names a file's format."""
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
_PROBE_BYTES = 4
_BUFFER_BYTES = 1 << 18


def plain_suffix(path: Path) -> str:
    """The ending that names the format, in lower case: `.jsonl` of `rows.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_text(
    path: Path, *, newline: str | None = "\n", encoding: str | None = None, remedy: str = ""
) -> Generator[TextIO, None, None]:
    r"""The text of a file, decompressed by what its first bytes say and decoded by its byte-order mark.

    Args:
        path: the file.
        newline: as `open` takes it; the default cuts lines at `\n` only and changes nothing.
        encoding: of the text; None reads UTF-8, or what a byte-order mark says. The mark is never part of the text.
        remedy: what else to do about bytes that are not in the encoding.

    Raises:
        DataError: inside the block too: a broken compressed file, or bytes that are not in the encoding, with
            their line and the likely encoding.
    """
    _check_encoding(encoding)
    try:
        with _open_bytes(path) as stream:
            chosen = _encoding_of(path, stream, encoding)
            with io.TextIOWrapper(stream, encoding=chosen, newline=newline) as text:
                yield text
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, encoding, error, remedy) from error
    except _BROKEN as error:
        raise DataError(
            str(path), f"the compressed file is broken or cut off: {error}", "make or fetch it again"
        ) from error


def _check_encoding(encoding: str | None) -> None:
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError as error:
        raise DataError(
            "source.encoding", f"no encoding is called {encoding!r}", "for example windows-1252"
        ) from error


@contextmanager
def _open_bytes(path: Path) -> Generator[io.BufferedReader, None, None]:
    with path.open("rb") as raw:
        head = raw.peek(10)
        stream: Any = raw
        if head.startswith(b"\x1f\x8b"):
            stream = gzip.GzipFile(fileobj=raw)
        elif head.startswith(b"\xfd7zXZ\x00"):
            stream = lzma.open(raw)  # noqa: SIM115, closed with `raw`
        elif head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
            stream = bz2.BZ2File(raw)
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            stream = _zstandard(path)
        yield stream if stream is raw else io.BufferedReader(stream, _BUFFER_BYTES)


def _zstandard(path: Path) -> Any:
    import pyarrow

    class Stream(io.RawIOBase):
        """What `io` can wrap: arrow's own stream returns bytes, and names faults with its own type."""

        def __init__(self) -> None:
            self._inner = pyarrow.input_stream(str(path), compression="zstd")

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any, /) -> int:
            try:
                piece = self._inner.read(len(buffer))
            except OSError as error:
                raise EOFError(str(error)) from error
            buffer[: len(piece)] = piece
            return len(piece)

    return Stream()


def _encoding_of(path: Path, stream: io.BufferedReader, named: str | None) -> str:
    head = stream.peek(_PROBE_BYTES)[:_PROBE_BYTES]
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            family = encoding.removesuffix("-sig")
            if named is not None and not codecs.lookup(named).name.startswith(family):
                raise DataError(
                    str(path),
                    f"begins with the byte-order mark of {family.upper()}, not of {named}",
                    "leave source.encoding out",
                )
            return encoding
    if named is not None:
        return named
    if b"\x00" in head[:2] and len(head) > 1:
        raise DataError(
            str(path),
            "holds null bytes: it is likely UTF-16 without a byte-order mark",
            "save the file in UTF-8",
        )
    return "utf-8"


def _wrong_encoding(path: Path, encoding: str | None, error: UnicodeDecodeError, remedy: str) -> DataError:
    """The error with the line of the first byte that cannot be read, found in a second pass."""
    where, problem = str(path), f"is not {(encoding or error.encoding).upper()}: {error.reason}"
    if error.encoding in ("utf-8", "utf-8-sig"):
        with _open_bytes(path) as stream:
            for number, line in enumerate(cast("IO[bytes]", stream), start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as found:
                    where = f"{path}:{number}"
                    problem = f"byte {line[found.start]:#04x} is not UTF-8"
                    likely = _as_windows(line, found.start)
                    if likely:
                        problem += f"; it is likely Windows-1252, where it reads {likely!r}"
                    break
    return DataError(where, problem, f"{remedy + ', or ' if remedy else ''}save the file in UTF-8")


def _as_windows(line: bytes, place: int) -> str:
    """Some characters around a byte as Windows-1252 has them; empty where that is no better."""
    try:
        shown = line[max(0, place - 8) : place + 8].decode("windows-1252").strip()
        return "" if any(letter < " " and letter not in "\t\r\n" for letter in shown) else shown
    except UnicodeDecodeError:
        return ""
