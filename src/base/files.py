"""Files written whole or not at all, and JSON-lines files that stay readable after a kill."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from metashot.base.errors import DataError, MetashotError, OutputError
from metashot.base.json_text import parse_json

GONE = "the folder was removed while the run wrote to it"

_CHUNK_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\..+\.(?P<node>[^/]*)\.(?P<process>\d+)\.[0-9a-f]{32}\.tmp")
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO, None, None]:
    """A stream whose content becomes `path` when the block ends well; else `path` stays as it was.

    Written through a temporary file beside it, fsync and rename.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_once(path.parent, os.getpid())
    # Opened by name and not by tempfile, whose files only their owner can read.
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


Errors = Callable[[Path], AbstractContextManager[None]]
"""Turns an operating-system error into one of ours: `output_errors`, `data_errors`."""


@contextmanager
def output_errors(path: Path) -> Generator[None]:
    """Turn an operating-system error while a run's output at `path` is written into an `OutputError`."""
    with _told(OutputError, path, "free the disk or choose another results_root or hydra.run.dir"):
        yield


@contextmanager
def data_errors(path: Path) -> Generator[None]:
    """Turn an operating-system error while a data file at `path` is written into a `DataError`."""
    with _told(DataError, path, "free the disk or choose another data.root"):
        yield


@contextmanager
def _told(kind: Callable[[str, str, str], MetashotError], path: Path, remedy: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise kind(str(error.filename or path), f"cannot write: {reason}", remedy) from error


def write_atomic(path: Path, content: str | bytes, errors: Errors = output_errors) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        OutputError: the folder cannot be written or the disk is full; an older `path` is untouched (`errors` makes it
            another error).
    """
    payload = content.encode("utf-8") if isinstance(content, str) else content
    with errors(path), replacing(path) as stream:
        stream.write(payload)


def write_json(path: Path, value: Any, errors: Errors = output_errors) -> None:
    """Write `value` as indented JSON, whole or not at all (`write_atomic`)."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", errors)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the manifest keeps of a file."""

    rows: int
    bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def write_lines(path: Path, lines: Iterable[str]) -> FileRecord:
    """Write one line each, streaming, with row count and checksum taken on the way.

    Raises:
        DataError: the folder cannot be written or the disk is full; an older `path` is untouched.
    """
    digest, rows, size = hashlib.sha256(), 0, 0
    with data_errors(path), replacing(path) as stream:
        for line in lines:
            encoded = line.encode("utf-8") + b"\n"
            digest.update(encoded)
            stream.write(encoded)
            rows += 1
            size += len(encoded)
    return FileRecord(rows, size, digest.hexdigest())


def copy_file(source: Path, target: Path) -> None:
    """Copy bytes; `target` appears whole."""
    with data_errors(target), replacing(target) as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream, _CHUNK_BYTES)


def record_of(path: Path) -> FileRecord:
    """Rows (lines), size and checksum of a file that is there."""
    digest, rows, size = hashlib.sha256(), 0, 0
    for chunk in _chunks(path):
        digest.update(chunk)
        rows += chunk.count(b"\n")
        size += len(chunk)
    return FileRecord(rows, size, digest.hexdigest())


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_once(path: Path) -> str:
    """`sha256_file`, remembered by this process for as long as the file's size and time of change stay."""
    state = path.stat()
    return _sha256_of_state(path.resolve(), state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=4096)
def _sha256_of_state(path: Path, size: int, changed: int, inode: int) -> str:
    del size, changed, inode
    return sha256_file(path)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def json_line(row: Mapping[str, Any]) -> bytes:
    """One row of a JSON-lines file."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines to a file in a folder that is there: see `append_bytes`."""
    append_bytes(path, b"".join(map(json_line, rows)))


def append_bytes(path: Path, payload: bytes) -> None:
    """Append whole lines in one write and fsync, so that a kill leaves at most one broken last line.

    A broken last line left by an earlier kill is closed with a newline first; readers skip it.

    Raises:
        OutputError: a full disk, or a folder that is gone or cannot be written.
    """
    with output_errors(path):
        is_new = not path.exists()
        with path.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    payload = b"\n" + payload
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            fsync_folder(path.parent)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole JSON objects of a JSON-lines file; a line cut by a kill is passed over."""
    with path.open("r", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                row = parse_json(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def fsync_file(path: Path) -> None:
    """Make the bytes of a file that is there durable."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """A new name beside `path` that tells which process writes there; see `remove_leftovers`."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{uuid.uuid4().hex}.tmp")


def remove_leftovers(folder: Path, pattern: str = ".*.tmp") -> None:
    """Remove temporary files and folders whose process on this machine is gone (it was killed while it wrote)."""
    for path in folder.glob(pattern):
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and match["node"] == platform.node() and not _is_alive(int(match["process"])):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@lru_cache(maxsize=4096)
def _clean_once(folder: Path, process: int) -> None:
    """Before a process first writes into a folder, what killed ones left there goes."""
    del process
    remove_leftovers(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def is_read_only(error: OSError) -> bool:
    """Whether the system has refused to write here at all, rather than failed to."""
    return error.errno in _REFUSALS


class HeldFolder:
    """Notices that a folder was removed meanwhile, also when something has made it again under the same name.

    Files are written whole into a folder that is made if missing, so without this a run whose folder was removed
    half way would end well with the second half.

    Args:
        path: made if it is not there.

    Raises:
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        # While it is open, the system gives its number to no other folder.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def is_gone(self) -> bool:
        """Whether it was removed or replaced."""
        try:
            return not os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return True


def hold(path: Path) -> HeldFolder:
    """The folder, made if it is not there, to be compared later with what lies there then.

    Raises:
        OutputError: it cannot be made or opened.
    """
    with output_errors(path):
        return HeldFolder(path)


def check_held(folder: HeldFolder) -> None:
    """Raise OutputError when a held folder is gone."""
    if folder.is_gone:
        raise OutputError(
            str(folder.path), GONE, "run the same command again: stored cells are not computed anew"
        )
