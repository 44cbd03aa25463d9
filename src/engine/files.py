"""Files written whole or not at all, and JSON-lines files that stay readable after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from metashot.data.files import fsync_file, fsync_folder, replacing
from metashot.data.held_folder import GONE, HeldFolder
from metashot.data.json_text import parse_json
from metashot.data.seals import digest_of
from metashot.engine.errors import OutputError

__all__ = [
    "append_bytes",
    "append_lines",
    "check_held",
    "digest_of",
    "fsync_file",
    "fsync_folder",
    "hold",
    "json_line",
    "output_errors",
    "read_lines",
    "sha256_file",
    "sha256_once",
    "write_atomic",
    "write_json",
]

_HASH_CHUNK_BYTES = 1 << 20


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` through a temporary file, fsync and rename.

    Raises:
        OutputError: the folder cannot be written or the disk is full; an older `path` is untouched.
    """
    payload = content.encode("utf-8") if isinstance(content, str) else content
    with output_errors(path), replacing(path) as stream:
        stream.write(payload)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
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


@contextmanager
def output_errors(path: Path) -> Generator[None]:
    """Turn an operating-system error while writing `path` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            str(error.filename or path),
            f"cannot write: {reason}",
            "free the disk or choose another results_root or hydra.run.dir",
        ) from error
