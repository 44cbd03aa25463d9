"""Plain values to the types that annotations name, with one-line errors."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metashot.data.errors import suggestion
from metashot.engine.errors import ConfigError

_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind` (a type, a union, a Literal, an Enum, a tuple of them).

    Raises:
        ConfigError: the value does not fit; the first fault is described, further ones are counted.
    """
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    own = isinstance(bare, type) and hasattr(bare, "__dataclass_fields__")
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
