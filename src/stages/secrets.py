"""What a record of a run must not hold: values that the config takes from the environment under a secret's name."""

from __future__ import annotations

import re
from typing import Any, cast

_SECRET = re.compile(
    r"\$\{oc\.env:\s*['\"]?(\w*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)\w*)", re.IGNORECASE
)
HIDDEN = "(secret, not recorded)"


def without_secrets(resolved: Any, unresolved: Any) -> Any:
    """A resolved config with such values, wherever they stand, replaced by a note.

    Args:
        resolved: plain values.
        unresolved: the same config before interpolation.
    """
    return _hidden(resolved, set(_secrets(resolved, unresolved)))


def _secrets(resolved: Any, unresolved: Any) -> list[str]:
    if isinstance(unresolved, str):
        return [str(resolved)] if _SECRET.search(unresolved) and resolved not in (None, "") else []
    pairs: list[tuple[Any, Any]] = []
    if isinstance(unresolved, dict) and isinstance(resolved, dict):
        pairs = [(resolved[key], value) for key, value in unresolved.items() if key in resolved]
    elif isinstance(unresolved, list) and isinstance(resolved, list):
        pairs = list(zip(resolved, unresolved, strict=False))
    return [secret for pair in pairs for secret in _secrets(*pair)]


def _hidden(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, dict):
        node = cast(dict[Any, Any], value)
        return {key: _hidden(item, secrets) for key, item in node.items()}
    if isinstance(value, list):
        return [_hidden(item, secrets) for item in cast(list[Any], value)]
    return HIDDEN if isinstance(value, str) and any(secret in value for secret in secrets) else value
