"""Files from the web: resumed where a transfer broke off, checked by length and sha256, placed whole."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from metashot.base.errors import DataError
from metashot.base.extras import import_extra

_RANGE_REFUSED = 416
_PARTIAL = 206


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How patient and how generous a download is.

    Attributes:
        timeout_seconds: longest wait for the connection or for the next piece.
        attempts: transfers tried before giving up; each goes on where the last one ended.
        max_bytes: largest file accepted.
        progress: show a bar.
    """

    timeout_seconds: float = 60.0
    attempts: int = 3
    max_bytes: int = 50 << 30
    progress: bool = False


def is_address(text: str) -> bool:
    """Whether a source file is a web address rather than a path."""
    return urlsplit(text).scheme in ("http", "https")


def download(url: str, target: Path, sha256: str | None = None, limits: TransferLimits | None = None) -> Path:
    """Fetch `url` into `target`, unless it is there already with the right checksum.

    A broken transfer leaves `<target>.part`; the next call goes on from there if the server's file is unchanged.

    Raises:
        DataError: unreachable, refused, too slow, incomplete after all attempts, too large, or a wrong checksum.
    """
    if target.is_file() and (sha256 is None or file_sha256(target) == sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _transfer(url, part, limits or TransferLimits())
    if sha256 is not None and (found := file_sha256(part)) != sha256:
        _forget(part)
        raise DataError(
            url, f"sha256 is {found}, not {sha256}", "the file changed: check the recipe's sha256"
        )
    os.replace(part, target)
    _forget(part)
    return target


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _transfer(url: str, part: Path, limits: TransferLimits) -> None:
    httpx = import_extra("httpx", url)
    problem = "not tried"
    for _ in range(limits.attempts):
        try:
            missing = _one_transfer(httpx, url, part, limits)
        except httpx.TimeoutException:
            problem = f"no answer within {limits.timeout_seconds:g} s"
        except httpx.HTTPError as error:
            problem = f"cannot be fetched: {error}"
        else:
            if missing == 0:
                return
            problem = f"the transfer ended {missing} bytes early"
    raise DataError(url, f"{problem} ({limits.attempts} attempts)", "run again: it goes on where it stopped")


def _one_transfer(httpx: Any, url: str, part: Path, limits: TransferLimits) -> int:
    """Fetch what is missing; returns how many bytes the server promised but did not send."""
    start = part.stat().st_size if part.is_file() else 0
    tag_file = _tag_file(part)
    headers = {"Accept-Encoding": "identity"}
    if start and tag_file.is_file():
        headers |= {"Range": f"bytes={start}-", "If-Range": tag_file.read_text(encoding="utf-8")}
    timeout = httpx.Timeout(limits.timeout_seconds)
    with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as answer:
        if answer.status_code == _RANGE_REFUSED:
            _forget(part)
            return -1
        if answer.status_code >= 400:
            raise DataError(
                url, f"the server answers {answer.status_code}", "check the address, or use a fallback source"
            )
        resumed = answer.status_code == _PARTIAL
        promised = int(answer.headers.get("content-length", -1))
        tag = answer.headers.get("etag") or answer.headers.get("last-modified")
        if tag and not tag.startswith("W/"):
            tag_file.write_text(tag, encoding="utf-8")
        received = _store(httpx, answer, part, start if resumed else 0, promised, url, limits)
    return max(promised - received, 0) if promised >= 0 else 0


def _store(
    httpx: Any, answer: Any, part: Path, start: int, promised: int, url: str, limits: TransferLimits
) -> int:
    received = 0
    total = start + promised if promised >= 0 else None
    with (
        part.open("ab" if start else "wb") as stream,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=not limits.progress) as bar,
    ):
        try:
            # Pieces as they come: larger ones would be lost when the connection breaks.
            for chunk in answer.iter_raw():
                received += len(chunk)
                if start + received > limits.max_bytes:
                    raise DataError(
                        url, f"is larger than {limits.max_bytes} bytes", "raise the limit if that is right"
                    )
                stream.write(chunk)
                bar.update(len(chunk))
        except httpx.RemoteProtocolError:
            return received  # the connection closed early; what came is kept and the rest asked for
    return received


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)
