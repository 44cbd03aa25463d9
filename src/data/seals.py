"""JSON values with digests: records that carry their own, so that a damaged one is seen when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"


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
