"""Zip archives, unpacked without letting them write elsewhere or fill the disk."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from metashot.base.errors import DataError
from metashot.base.files import remove_leftovers, temporary_beside

MAX_BYTES = 40 << 30
"""Most bytes that an archive may unpack to."""
MAX_RATIO = 200
"""Most bytes that one compressed byte may become; text reaches 10 to 30."""
_RATIO_FLOOR_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


def extract_zip(
    archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO
) -> Path:
    """Unpack `archive` into the new folder `folder`, which appears only when all of it is there.

    Raises:
        DataError: no zip, a member outside the folder, a link, an encrypted member, or an oversized expansion.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    scratch = temporary_beside(folder)
    scratch.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                _check_member(archive, member, max_ratio)
            budget = max_bytes
            for member in opened.infolist():
                budget -= _extract(opened, member, scratch, budget, archive)
        os.replace(scratch, folder)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(str(archive), f"is no whole zip file: {error}", "fetch it again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _check_member(archive: Path, member: zipfile.ZipInfo, max_ratio: float) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or (path.parts and ":" in path.parts[0] and len(path.parts[0]) == 2)
    ):
        raise _refused(archive, f'member "{member.filename}" lies outside the folder')
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _refused(archive, f'member "{member.filename}" is a link')
    if member.flag_bits & 0x1:
        raise _refused(archive, f'member "{member.filename}" is encrypted')
    allowed = max(_RATIO_FLOOR_BYTES, max_ratio * member.compress_size)
    if member.file_size > allowed:
        raise _refused(
            archive,
            f'member "{member.filename}" expands {member.file_size / max(member.compress_size, 1):.0f}-fold',
        )


def _extract(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Path, budget: int, archive: Path
) -> int:
    target = scratch / member.filename.replace("\\", "/")
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > budget:
                raise _refused(archive, "unpacks to more bytes than allowed")
            sink.write(chunk)
    return written


def _refused(archive: Path, problem: str) -> DataError:
    return DataError(str(archive), f"refused: {problem}", "take the archive from a source that you trust")
