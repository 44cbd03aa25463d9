"""Plain values to the types that annotations name, with one-line errors, and settings back to plain values."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from functools import partial
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metashot.data.errors import suggestion
from metashot.engine.errors import ConfigError

T = TypeVar("T")
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind` (a type, a union, a Literal, an Enum, a tuple of them).

    Raises:
        ConfigError: the value does not fit; the first fault is described, further ones are counted.
    """
    own = is_dataclass(get_args(kind)[0] if get_origin(kind) is Annotated else kind)
    try:
        return TypeAdapter(kind, config=None if own else _CONFIG).validate_python(value)
    except ValidationError as error:
        first, *rest = error.errors()
        place = ".".join([where, *(str(part) for part in first["loc"] if not isinstance(part, str))])
        more = f"; {len(rest)} more fault(s)" if rest and len(rest) > 1 else ""
        expected = str(first.get("ctx", {}).get("expected", "")).replace("'", "")
        hint = suggestion(str(value), expected.replace(" or ", ", ").split(", ")) if expected else ""
        message = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(place, f"{message}, got {value!r}{more}", hint or "correct the value") from None


def as_plain(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, for identities; a call that waits is its target and arguments."""
    return asdict(settings, dict_factory=lambda pairs: {key: _described(value) for key, value in pairs})


def _described(value: Any) -> Any:
    if not isinstance(value, partial):
        return value
    target: Any = value.func
    return {"_target_": f"{target.__module__}.{target.__qualname__}", **value.keywords}


def fields_of(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass, one level deep, to make one that has more."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def part_of(kind: type[T], settings: Any) -> T:
    """The fields that the dataclass `kind` has, out of an object that has more."""
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})  # pyright: ignore[reportArgumentType]
