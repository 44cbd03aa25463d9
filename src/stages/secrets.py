"""What a record of a run must not hold: values that come from the environment, or stand, under a secret's name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from metashot.base.files import write_atomic

_SECRET_VARIABLE = re.compile(
    r"\$\{oc\.env:\s*['\"]?(\w*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)\w*)", re.IGNORECASE
)
_SECRET_KEY = re.compile(
    r"(?:^|.*[._])(?:(?:api|access|auth|secret|private)_?(?:key|token)|token|secret|password|passwd|credentials?)",
    re.IGNORECASE,
)
HIDDEN = "(secret, not recorded)"
_SHORTEST_PART = 4
"""A shorter secret is hidden where it is the whole value only."""


def secrets_of(resolved: Any, unresolved: Any, key: str = "") -> set[str]:
    """The secret texts of a config.

    Args:
        resolved: plain values.
        unresolved: the same config before interpolation.
        key: under which both stand.
    """
    return set(_secrets(resolved, unresolved, key))


def _secrets(resolved: Any, unresolved: Any, key: str) -> Iterator[str]:
    if isinstance(resolved, str):
        named = _SECRET_KEY.fullmatch(key) is not None
        if resolved and (named or (isinstance(unresolved, str) and _SECRET_VARIABLE.search(unresolved))):
            yield resolved
    elif isinstance(resolved, dict):
        other = cast(dict[Any, Any], unresolved if isinstance(unresolved, dict) else {})
        for name, value in cast(dict[Any, Any], resolved).items():
            yield from _secrets(value, other.get(name), str(name))
    elif isinstance(resolved, list):
        items = cast(list[Any], resolved)
        others = cast(list[Any], unresolved) if isinstance(unresolved, list) else []
        for place, value in enumerate(items):
            yield from _secrets(value, others[place] if place < len(others) else None, key)


def without_secrets(value: Any, secrets: set[str]) -> Any:
    """A plain value with every secret in it, wherever it stands, replaced by a note."""
    if isinstance(value, dict):
        node = cast(dict[Any, Any], value)
        return {key: without_secrets(item, secrets) for key, item in node.items()}
    if isinstance(value, list):
        return [without_secrets(item, secrets) for item in cast(list[Any], value)]
    return HIDDEN if isinstance(value, str) and _holds_one(value, secrets) else value


def recorded_overrides(overrides: Sequence[str], secrets: set[str]) -> list[str]:
    """The command line without the overrides that hold a secret: the run can be replayed from the rest."""
    return [text for text in overrides if not _holds_one(text.partition("=")[2].strip("'\""), secrets)]


def hide_in_files(folder: Path, secrets: set[str]) -> None:
    """Replace secrets in the YAML files that Hydra has written already, if there are any."""
    for path in sorted(folder.glob("*.yaml")) if secrets else ():
        text = path.read_text(encoding="utf-8")
        hidden = text
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_PART:
                hidden = hidden.replace(secret, HIDDEN)
        if hidden != text:
            write_atomic(path, hidden)


def _holds_one(text: str, secrets: set[str]) -> bool:
    return any(text == secret or (len(secret) >= _SHORTEST_PART and secret in text) for secret in secrets)
