"""The choices of `conf` by name, for Python: a name means the YAML file that the command line composes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from metashot.base.components.binding import PARTIAL, TARGET, bind_call, make
from metashot.base.components.targets import import_target
from metashot.base.errors import ConfigError, suggestion

_PACKAGE = Path(__file__).resolve().parents[2]
CONFIG_FOLDER = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Where the YAML files are: inside the installed package, or beside `src` in a checkout."""


def choice_names(group: str) -> list[str]:
    """The files of a group, by name."""
    return sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml"))


@lru_cache
def choice_node(group: str, name: str) -> Mapping[str, Any]:
    """The node of a choice, with what its defaults list brings.

    Understood are files of the same group, entries that stay in the choice's own package (`kind@_here_: scoring`,
    `kind/scoring@_here_`), and a group below one key (`/optimizer@prompt_optimizer: adamw`), which is what the files of
    `conf` use; interpolations stay as they are written.

    Raises:
        ConfigError: no such choice.
    """
    path = CONFIG_FOLDER / group / f"{name}.yaml"
    if name not in choice_names(group):
        raise ConfigError(group, f"no choice {name!r}", suggestion(name, choice_names(group)))
    content: dict[str, Any] = yaml.safe_load(path.read_text("utf-8")) or {}
    node: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        key, choice = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        place = str(choice).partition("@")[0]
        if place != "_self_" and " " not in str(key):  # `override /prompt` is for the whole config
            folder = str(key).partition("@")[0]
            below = folder[1:] if folder.startswith("/") else f"{group}/{folder}".rstrip("/")
            inner, _, file = place.rpartition("/")
            brought = choice_node(f"{below}/{inner}".rstrip("/"), file)
            for name_below in reversed(_package(f"{key}" if key else str(choice))):
                brought = {name_below: brought}
            node = _merged(node, brought)
    return _merged(node, content)


def _package(entry: str) -> list[str]:
    """The keys below which an entry of a defaults list is put: `/optimizer@train.optimizer` gives train, optimizer."""
    package = entry.partition("@")[2]
    return [] if package in ("", "_here_") else package.split(".")


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key at every depth, as Hydra merges; `over` wins."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], Mapping) and isinstance(over[key], Mapping):
            merged[key] = _merged(under[key], over[key])
    return merged


def named(group: str, name: str, /, **changes: Any) -> Any:
    """What the choice `name` of a group makes.

    Args:
        group: folder of `conf`.
        name: file in it.
        changes: keys to set.

    Raises:
        ConfigError: no such choice, or a key that it does not take.
    """
    node = {**choice_node(group, name), **changes}
    target = import_target(str(node.pop(TARGET)), f"{group}.{TARGET}")
    node.pop(PARTIAL, None)
    return make(bind_call(target, node, group))
