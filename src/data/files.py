"""Data files written whole or not at all, with their row count and checksum taken on the way."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from metashot.data.errors import DataError

_COPY_CHUNK_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\..+\.(?P<node>[^/]*)\.(?P<process>\d+)\.[0-9a-f]{32}\.tmp")


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
    """Write one line each, streaming, through a temporary file, fsync and rename.

    Raises:
        DataError: the folder cannot be written or the disk is full; an older `path` is untouched.
    """
    digest, rows, size = hashlib.sha256(), 0, 0
    with _replacing(path) as stream:
        for line in lines:
            encoded = line.encode("utf-8") + b"\n"
            digest.update(encoded)
            stream.write(encoded)
            rows += 1
            size += len(encoded)
    return FileRecord(rows, size, digest.hexdigest())


def copy_file(source: Path, target: Path) -> None:
    """Copy bytes; `target` appears whole."""
    with _replacing(target) as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream, _COPY_CHUNK_BYTES)


def write_json_file(path: Path, value: Any) -> None:
    """Indented JSON, written whole."""
    with _replacing(path) as stream:
        stream.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


def record_of(path: Path) -> FileRecord:
    """Rows (lines), size and checksum of a file that is there."""
    digest, rows, size = hashlib.sha256(), 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(_COPY_CHUNK_BYTES):
            digest.update(chunk)
            rows += chunk.count(b"\n")
            size += len(chunk)
    return FileRecord(rows, size, digest.hexdigest())


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


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO, None, None]:
    """A stream whose content becomes `path` when the block ends well; else `path` stays as it was.

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


@contextmanager
def _replacing(path: Path) -> Generator[BinaryIO, None, None]:
    try:
        with replacing(path) as stream:
            yield stream
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(
        str(path),
        f"cannot be written: {error.strerror or error}",
        "free the disk or choose another data.root",
    )
