"""Plain values to the types that annotations name, with one-line errors, and settings back to plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from metashot.base.errors import ConfigError, suggestion

T = TypeVar("T")
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
_BOUNDS = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "above {}"),
    "less_than_equal": ("le", "{} or less"),
    "less_than": ("lt", "below {}"),
}
_WIDEST = 2**64
_SHOWN = 200


def convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind` (a type, a union, a Literal, an Enum, a tuple of them, with ranges as annotations).

    What no kind means is refused whatever it is: NaN and infinity, numbers beyond 64 bits, control characters, true and
    false for numbers, an empty text for a path.

    Raises:
        ConfigError: the value does not fit; the first fault is described, further ones are counted.
    """
    _check_sound(value, where)
    if _holds(value, bool) and not _takes_any(kind) and not _mentions(kind, bool):
        raise ConfigError(where, f"takes no true or false, got {_short(value)}", "write the value itself")
    if _holds_empty(value) and not _takes_any(kind) and _mentions(kind, Path):
        raise ConfigError(where, "is an empty text, which names no path", "give a path, or leave the key out")
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise _one_fault(error, kind, where) from None


def hold_to_choices(settings: Any, where: str) -> None:
    """Refuse a value that none of its field's choices is (a `Literal`, an enum, or a list of them).

    The config is held to every type as it is read; objects that Python code makes are held to this by their class.

    Args:
        settings: a dataclass object.
        where: dotted name of its node, for errors.

    Raises:
        ConfigError: the first such value.
    """
    for name, kind in get_type_hints(type(settings), include_extras=True).items():
        if hasattr(settings, name) and _names_choices(kind):
            convert(kind, getattr(settings, name), f"{where}.{name}")


@lru_cache(maxsize=4096)
def _names_choices(kind: Any) -> bool:
    if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        return True
    return any(_names_choices(part) for part in get_args(kind) if not isinstance(part, list))


@lru_cache(maxsize=4096)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    own = is_dataclass(get_args(kind)[0] if get_origin(kind) is Annotated else kind)
    return TypeAdapter(kind, config=None if own else _CONFIG)


def _one_fault(error: ValidationError, kind: Any, where: str) -> ConfigError:
    faults = error.errors(include_url=False)
    # A text where numbers or some words may stand was meant as a word.
    meant = (one for one in faults if isinstance(one["input"], str) and "expected" in one.get("ctx", {}))
    first = next(meant, faults[0])
    rest = [one for one in faults if one is not first]
    place = ".".join([where, *(str(part) for part in first["loc"] if not isinstance(part, str))])
    more = f"; {len(rest)} more fault(s)" if rest and len(rest) > 1 else ""
    context = first.get("ctx", {})
    expected = str(context.get("expected", "")).replace("'", "")
    hint = suggestion(str(first["input"]), expected.replace(" or ", ", ").split(", ")) if expected else ""
    message, got = first["msg"][0].lower() + first["msg"][1:], first["input"]
    if expected and faults[0]["type"] == "int_parsing":
        message += ", or a whole number"
    if first["type"] in _BOUNDS:
        key, words = _BOUNDS[first["type"]]
        message, hint = f"must be {words.format(_number(context[key]))}", _range(kind)
    elif first["type"] == "value_error":
        message = str(context["error"])
    return ConfigError(place, f"{message}, got {_short(got)}{more}", hint or "correct the value")


def _range(kind: Any) -> str:
    """The bounds of the first annotated number in a type, in words."""
    for part in (kind, *get_args(kind)):
        found: dict[str, Any] = {}
        for note in getattr(part, "__metadata__", ()):
            for rule in note.metadata if isinstance(note, FieldInfo) else ():
                found |= {key: getattr(rule, key) for key, _ in _BOUNDS.values() if hasattr(rule, key)}
        if found:
            return "give " + " and ".join(
                words.format(_number(found[key])) for key, words in _BOUNDS.values() if key in found
            )
        if part is not kind and (deeper := _range(part)):
            return deeper
    return ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_sound(value: Any, where: str) -> None:
    """Raise ConfigError for a value that no setting means, at any depth."""
    if isinstance(value, str):
        if bad := next((one for one in value if not one.isprintable() and _is_control(one)), None):
            raise ConfigError(where, f"holds the control character {bad!r}", "leave it out")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(where, f"{value} is no number to compute with", "give a finite one")
    elif isinstance(value, int) and abs(value) >= _WIDEST:
        raise ConfigError(where, "is a number beyond 64 bits", "give a smaller one")
    elif isinstance(value, Mapping):
        for key, item in cast(Mapping[Any, Any], value).items():
            _check_sound(key, where)
            _check_sound(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(cast(list[Any], value)):
            _check_sound(item, f"{where}[{place}]")


def _is_control(one: str) -> bool:
    """Of a terminal or half a character; line breaks and tabs are text."""
    return one not in "\n\t" and (ord(one) < 32 or 127 <= ord(one) < 160 or 0xD800 <= ord(one) < 0xE000)


def _holds(value: Any, kind: type) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds(item, kind) for item in cast(list[Any], value))
    if isinstance(value, Mapping):
        return any(_holds(item, kind) for item in cast(Mapping[Any, Any], value).values())
    return isinstance(value, kind)


def _holds_empty(value: Any) -> bool:
    return value == "" or (isinstance(value, list) and "" in value)


@lru_cache(maxsize=4096)
def _mentions(kind: Any, wanted: type) -> bool:
    """Whether a type names `wanted` anywhere, less what a callable takes."""
    parts = [part for part in get_args(kind) if not isinstance(part, list)]
    return kind is wanted or any(_mentions(part, wanted) for part in parts)


def _takes_any(kind: Any) -> bool:
    return _mentions(kind, cast(type, Any)) or _mentions(kind, object)


def fields_of(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass, one level deep, to make one that has more."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def part_of(kind: type[T], settings: Any) -> T:
    """The fields that the dataclass `kind` has, out of an object that has more."""
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})  # pyright: ignore[reportArgumentType]
