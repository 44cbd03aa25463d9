"""Files written whole or not at all, and JSON-lines files that stay readable after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metashot.data.files import replacing
from metashot.engine.errors import OutputError

_HASH_CHUNK_BYTES = 1 << 20


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` through a temporary file, fsync and rename.

    Raises:
        OutputError: the folder cannot be written or the disk is full; an older `path` is untouched.
    """
    payload = content.encode("utf-8") if isinstance(content, str) else content
    with output_errors(path):
        with replacing(path) as stream:
            stream.write(payload)
        fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append JSON lines in one write and fsync, so that a kill leaves at most one broken last line.

    A broken last line left by an earlier kill is closed with a newline first; readers skip it.
    """
    payload = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as stream:
            if stream.tell() > 0:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    payload = b"\n" + payload
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole JSON objects of a JSON-lines file; a line cut by a kill is passed over."""
    with path.open("r", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex sha256 of a JSON-able value, independent of key order and of Python's hash seed."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@contextmanager
def output_errors(path: Path) -> Generator[None]:
    """Turn an operating-system error while writing `path` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            str(path),
            f"cannot write: {reason}",
            "free the disk or choose another results_root or hydra.run.dir",
        ) from error
