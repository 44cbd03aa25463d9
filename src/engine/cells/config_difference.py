"""In which keys two resolved configs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metashot.engine.tracking.tracker import flatten

_ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Change:
    """One key with its two values as text; `(absent)` where a config lacks it."""

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def config_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], ignore: Sequence[str] = ()
) -> tuple[Change, ...]:
    """Keys whose values differ, sorted.

    Args:
        before: a resolved config, nested.
        after: another one.
        ignore: dotted keys, or nodes, that do not count (output folders, for example).
    """
    old, new = flatten(before), flatten(after)
    keys = [key for key in sorted(old.keys() | new.keys()) if not _ignored(key, ignore)]
    return tuple(
        Change(key, _text(old, key), _text(new, key)) for key in keys if _text(old, key) != _text(new, key)
    )


def _ignored(key: str, ignore: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in ignore)


def _text(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key], ensure_ascii=False, default=str) if key in config else _ABSENT
