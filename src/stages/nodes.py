"""Config nodes to frozen dataclasses, with one-line errors; the dataclass is the only description of a node."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metashot.data.errors import suggestion
from metashot.engine.errors import ConfigError

T = TypeVar("T")
_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


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


def convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind` (a type, a union, a Literal, an Enum, a tuple of them).

    Raises:
        ConfigError: the value does not fit.
    """
    try:
        return TypeAdapter(kind, config=None if _own_config(kind) else _STRICT).validate_python(value)
    except ValidationError as error:
        first, *rest = error.errors()
        place = ".".join([where, *(str(part) for part in first["loc"] if not isinstance(part, str))])
        more = f"; {len(rest)} more fault(s)" if rest and len(rest) > 1 else ""
        expected = str(first.get("ctx", {}).get("expected", "")).replace("'", "")
        hint = suggestion(str(value), expected.replace(" or ", ", ").split(", ")) if expected else ""
        message = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(place, f"{message}, got {value!r}{more}", hint or "correct the value") from None


def _own_config(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")


def _types(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _required(kind: type[Any]) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]


def unknown_key(where: str, known: Iterable[str]) -> ConfigError:
    """The error for a key that no component reads."""
    return ConfigError(where, "unknown key", suggestion(where.rsplit(".", 1)[-1], known))


def check_targets(node: Any, where: str = "") -> None:
    """Hold every `_target_` node's arguments to the signature it names; nothing is instantiated.

    Raises:
        ConfigError: a target that cannot be imported, an argument that it does not take, or one that it lacks.
    """
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_targets(item, f"{where}[{index}]")
    if not isinstance(node, dict):
        return
    for key, item in node.items():
        check_targets(item, f"{where}.{key}" if where else str(key))
    if "_target_" in node:
        _check_signature(node, where)


def _check_signature(node: Mapping[str, Any], where: str) -> None:
    target = _import_target(str(node["_target_"]), where)
    parameters = inspect.signature(target).parameters
    given = [
        key for key in node if key not in ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
    ]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in given:
        if key not in parameters and not takes_any:
            raise ConfigError(
                f"{where}.{key}", f"{node['_target_']} takes no argument {key!r}", suggestion(key, parameters)
            )
    if node.get("_partial_") or node.get("_args_"):
        return
    lacking = [
        name for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in given
    ]  # fmt: skip
    if lacking:
        raise ConfigError(
            where, f"{node['_target_']} also needs {', '.join(lacking)}", "add it to the config"
        )


def _import_target(target: str, where: str) -> Any:
    module_name, _, attribute = target.rpartition(".")
    try:
        return getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{where}._target_", f"cannot import {target!r}: {error}", "check the dotted name"
        ) from None
