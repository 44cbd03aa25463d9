"""Whether a class or function makes what a place in the config wants, and whether a made object is that."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from metashot.base.components.targets import LIBRARIES
from metashot.base.errors import ConfigError


def check_maker(target: Callable[..., Any], wanted: Any, name: str, where: str) -> None:
    """Raise ConfigError when `target`, which is not called, cannot make a `wanted`.

    A class is held to the methods of a protocol, or to a base class. A function is held to its return type; one
    without is accepted from this package and from the user's own, and judged by what it returns.
    """
    wanted = _plain(wanted)
    made = target if inspect.isclass(target) else _return_type(target)
    if wanted is Any or not inspect.isclass(wanted):
        return
    if not inspect.isclass(made):
        root = name.partition(".")[0]
        if root in LIBRARIES and root != "metashot":
            raise ConfigError(
                f"{where}._target_",
                f"{name!r} does not say that it makes a {wanted.__name__}",
                "name a class",
            )
        return
    if made is wanted:
        return
    if not _is_protocol(wanted):
        if not issubclass(made, wanted):
            raise ConfigError(
                f"{where}._target_", f"{name!r} makes no {wanted.__name__}", "name another target"
            )
        return
    lacking = [member for member in methods_of(wanted) if not callable(getattr(made, member, None))]
    if lacking:
        raise _lacks(name, wanted, lacking, where)


def check_made(made: Any, wanted: Any, where: str) -> None:
    """Raise ConfigError when an object is no `wanted`, or lacks one of its members."""
    wanted = _plain(wanted)
    if wanted is Any or not inspect.isclass(wanted):
        return
    if not _is_protocol(wanted):
        if not isinstance(made, wanted):
            raise ConfigError(where, f"{type(made).__name__} is no {wanted.__name__}", "name another target")
        return
    lacking = [member for member in members_of(wanted) if not hasattr(made, member)]
    if lacking:
        raise _lacks(type(made).__name__, wanted, lacking, where)


def methods_of(protocol: type[Any]) -> list[str]:
    """The methods of a protocol, without its properties and attributes."""
    return [
        name
        for name in members_of(protocol)
        if any(inspect.isfunction(vars(base).get(name)) for base in protocol.__mro__)
    ]


def members_of(protocol: type[Any]) -> list[str]:
    """Everything that an object of a protocol must have."""
    bases = [base for base in protocol.__mro__ if _is_protocol(base)]
    names = [name for base in bases for name in (*vars(base), *inspect.get_annotations(base))]
    return sorted({name for name in names if not name.startswith("_")})


def _lacks(name: str, wanted: type[Any], lacking: list[str], where: str) -> ConfigError:
    return ConfigError(where, f"{name} lacks {', '.join(lacking)}", f"a {wanted.__name__} has these")


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _is_protocol(kind: Any) -> bool:
    return bool(vars(kind).get("_is_protocol", False)) if inspect.isclass(kind) else False


def _return_type(target: Callable[..., Any]) -> Any:
    try:
        kind = get_type_hints(target).get("return")
        return None if kind is Any else kind
    except (NameError, TypeError):
        return None
