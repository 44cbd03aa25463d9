"""Config nodes to frozen dataclasses, with one-line errors; the dataclass is the only description of a node."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from metashot.data.errors import suggestion
from metashot.engine.components.values import convert
from metashot.engine.errors import ConfigError

T = TypeVar("T")


def build(kind: type[T], node: Mapping[str, Any] | None, where: str, **given: Any) -> T:
    """Make a `kind` from a config node.

    Args:
        kind: a dataclass whose fields are the node's keys.
        node: plain values, as composed.
        where: dotted name of the node, for errors.
        given: fields that do not come from the config.

    Raises:
        ConfigError: an unknown key (with the nearest one), a missing key, or a value outside its type; the first
            fault is described, further ones are counted.
    """
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    if node is None:
        raise ConfigError(where, "is not set", f"choose one: {where}=<name>")
    for key in node:
        if key not in known or key in given:
            raise unknown_key(f"{where}.{key}", [name for name in known if name not in given])
    missing = [name for name in _required(kind) if name not in node and name not in given]
    if missing:
        raise ConfigError(f"{where}.{missing[0]}", "is missing", f"set {where}.{missing[0]}=<value>")
    types = _types(kind)
    values = {key: convert(types[key], value, f"{where}.{key}") for key, value in node.items()}
    return kind(**values, **given)


def _types(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _required(kind: type[Any]) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]


def unknown_key(where: str, known: Iterable[str]) -> ConfigError:
    """The error for a key that no component reads."""
    return ConfigError(where, "unknown key", suggestion(where.rsplit(".", 1)[-1], known))
