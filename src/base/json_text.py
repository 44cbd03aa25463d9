"""JSON: read from others as a value or a ValueError, digested, and sealed with its own digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

SEAL = "seal"

_DECODER = json.JSONDecoder()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text (bytes: in UTF-8), however hostile.

    Raises:
        ValueError: no JSON, or JSON that cannot be held or written again: nested too deep, an integer of thousands of
            digits, half of a surrogate pair.
    """
    plain = text if isinstance(text, str) else text.decode("utf-8")
    with bounded():
        value = _DECODER.decode(plain)
    if "\\u" in plain and not is_whole(value):
        raise ValueError("a text holds half a character (a lone surrogate)")
    return value


@contextmanager
def bounded() -> Generator[None]:
    """Decoding JSON of any depth and with numbers of any length ends in a value or a ValueError."""
    try:
        yield
    except RecursionError:
        raise ValueError("lists or objects are nested too deep") from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError("an integer has thousands of digits") from None
        raise


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: see `parse_json`.
        OSError: the file cannot be read.
    """
    return parse_json(path.read_bytes())


def is_whole(value: Any) -> bool:
    """Whether all texts of a JSON value can be written: half of a surrogate pair cannot."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(is_whole(key) and is_whole(item) for key, item in cast(dict[str, Any], value).items())
    return not isinstance(value, list) or all(map(is_whole, cast(list[Any], value)))


def digest_of(value: Any) -> str:
    """Hex sha256 of a JSON-able value, independent of key order and of Python's hash seed."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with `seal`, the sha256 of all its other keys, put last."""
    content = {key: value for key, value in record.items() if key != SEAL}
    return {**content, SEAL: digest_of(content)}


def unsealed(record: Any) -> dict[str, Any]:
    """The content of a sealed record as it was written.

    Raises:
        ValueError: no object, no seal, or another one than the content has.
    """
    if not isinstance(record, dict):
        raise ValueError("is no JSON object")
    content = {str(key): value for key, value in record.items() if key != SEAL}
    if SEAL not in record:
        raise ValueError("carries no seal")
    if record[SEAL] != digest_of(content):
        raise ValueError("differs from its seal")
    return content
