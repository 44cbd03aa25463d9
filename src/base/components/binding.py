"""Hold a config node to the signature and the types of what it makes, before anything is made.

`bind` turns plain values and the type they should have into a tree of checked calls, `make` carries the calls out. A
node with `_target_` names its class or function; a node without it is one for the dataclass that the type names. With
`_partial_: true` a call waits for the arguments that only the code has: the type `Callable[[Model], Scorer]` says that
the first parameter is given later, and what must come out.

Example:
    The type `Scorer` of a field and its node::

        scorer: {_target_: metashot.engine.scoring.PlainScorer, batch_sise: 4}

    give ``scorer.batch_sise: unknown key (did you mean 'batch_size'?)``.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from metashot.base.components.contracts import check_made, check_maker
from metashot.base.components.library_arguments import argument_kind
from metashot.base.components.targets import import_target
from metashot.base.components.values import convert
from metashot.base.errors import ConfigError, suggestion
from metashot.base.identity import without_marks

TARGET, PARTIAL = "_target_", "_partial_"
_MAPPINGS, _SEQUENCES = (dict, Mapping), (list, tuple, Sequence)
_KEYED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Call:
    """A checked call that is not made yet.

    Attributes:
        where: dotted name of its node.
        target: class or function.
        name: the node's `_target_`, or None for a dataclass that the type names.
        values: arguments by name; further calls among them.
        partial: bind the arguments only.
        makes: the type of what comes out.
    """

    where: str
    target: Callable[..., Any]
    name: str | None
    values: Mapping[str, Any]
    partial: bool
    makes: Any


def bind(kind: Any, value: Any, where: str) -> Any:
    """`value` checked against `kind`: converted values, with a `Call` for every node.

    Args:
        kind: a type, as annotations write it.
        value: plain values, as composed.
        where: dotted name of the value, for errors.

    Raises:
        ConfigError: an unknown key (with the nearest one), a missing key, a value outside its type, or a target that
            is not trusted, cannot be imported, or makes something else than what is wanted.
    """
    optional, kind = _split_none(without_marks(kind))
    if value is None and optional:
        return None
    if isinstance(value, Mapping) and TARGET in value:
        return _bind_target(kind, value, where)
    if _is_structure(kind):
        return _bind_structure(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(value, Mapping) and origin in _MAPPINGS and _is_structure(_split_none(arguments[1])[1]):
        return {str(key): bind(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list) and origin in _SEQUENCES and _is_structure(_split_none(arguments[0])[1]):
        return [bind(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value)]
    _refuse_targets(value, where)
    return convert(kind, value, where)


def bind_call(
    target: Callable[..., Any], node: Mapping[str, Any], where: str, *, given: Sequence[str] = ()
) -> Call:
    """A node's keys checked against the signature of `target`.

    Args:
        target: class or function.
        node: its arguments.
        where: dotted name of the node; empty for the whole config.
        given: parameters that the code gives, which therefore are no keys.
    """
    return _bind_keys(target, None, node, where, given=given, partial=False, makes=Any, all_given=False)


def make(bound: Any, call: Callable[[Call, Mapping[str, Any]], Any] | None = None, **given: Any) -> Any:
    """Carry out what `bind` returned, inner calls first.

    Args:
        bound: from `bind` or `bind_call`.
        call: how a call with made arguments is carried out; by default the target is called.
        given: further arguments of the outermost call.

    Raises:
        ConfigError: an object lacks a member of the type that is wanted, or refuses its values.
    """
    carry_out = call or _call
    if isinstance(bound, Call):
        values = {name: make(value, call) for name, value in bound.values.items()}
        made = carry_out(bound, {**values, **given})
        if not bound.partial:
            check_made(made, bound.makes, bound.where)
        return made
    if isinstance(bound, dict):
        items = cast(dict[str, Any], bound)
        return {key: make(item, call) for key, item in items.items()}
    if isinstance(bound, list) and any(isinstance(item, Call) for item in bound):
        return [make(item, call) for item in bound]
    return bound


def _call(call: Call, values: Mapping[str, Any]) -> Any:
    return functools.partial(call.target, **values) if call.partial else call.target(**values)


def _bind_target(kind: Any, node: Mapping[str, Any], where: str) -> Call:
    name = str(node[TARGET])
    target = import_target(name, f"{where}.{TARGET}")
    if not _takes_component(kind):
        _refuse_targets(node, where)
    waits = get_origin(kind) is collections.abc.Callable
    partial = node.get(PARTIAL, False)
    if partial is not waits:
        rule = "must be true: the rest of its arguments comes later" if waits else "must not be set here"
        raise ConfigError(f"{where}.{PARTIAL}", rule, f"{PARTIAL}: {str(waits).lower()}")
    parameters, makes = get_args(kind) if waits else ((), kind)
    check_maker(target, makes, name, where)
    keys = {key: value for key, value in node.items() if key not in (TARGET, PARTIAL)}
    later = [] if parameters is Ellipsis else _positional(target)[: len(parameters)]
    return _bind_keys(
        target, name, keys, where, given=later, partial=partial, makes=makes, all_given=parameters is Ellipsis
    )


def _bind_structure(kind: Any, value: Any, where: str) -> Any:
    if value is None:
        raise ConfigError(where, "is not set", f"choose one: {where}=<name>")
    if not isinstance(value, Mapping):
        raise ConfigError(where, f"has keys of its own, got {value!r}", f"set {where}.<key>=<value>")
    if not is_dataclass(kind) or inspect.isabstract(kind):
        raise ConfigError(f"{where}.{TARGET}", "is missing", "name the class or function that makes it")
    return _bind_keys(
        cast(Callable[..., Any], kind), None, value, where, given=(), partial=False, makes=kind, all_given=False
    )  # fmt: skip


def _bind_keys(
    target: Callable[..., Any], name: str | None, node: Mapping[str, Any], where: str, *, given: Sequence[str],
    partial: bool, makes: Any, all_given: bool,
) -> Call:  # fmt: skip
    parameters = signature(target)
    known = [key for key in parameters if key not in given]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    dot = f"{where}." if where else ""
    for key in node:
        if key not in known and not takes_any:
            raise ConfigError(f"{dot}{key}", "unknown key", suggestion(str(key), known))
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in node and key not in given and not all_given:
            raise ConfigError(f"{dot}{key}", "is missing", f"set {dot}{key}=<value>")
    kinds = types_of(target)
    values = {
        str(key): bind(
            argument_kind(target, key) or kinds.get(key, _kind_of_default(parameters.get(key))),
            value,
            f"{dot}{key}",
        )
        for key, value in node.items()
    }
    return Call(where, target, name, values, partial, makes)


@functools.lru_cache(maxsize=1024)
def signature(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function that a key can set."""
    found = inspect.signature(target).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind in _KEYED}


@functools.lru_cache(maxsize=1024)
def types_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of its parameters, as far as they can be read."""
    source = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
    try:
        return get_type_hints(source, include_extras=True)
    except (NameError, TypeError):  # names that the module imports for type checkers only
        return {}


def _kind_of_default(parameter: inspect.Parameter | None) -> Any:
    """What an unannotated parameter takes, by its default."""
    if parameter is None or parameter.default is None or parameter.default is parameter.empty:
        return Any
    kind = type(parameter.default)
    return kind | None if kind in (bool, int, float, str, tuple) else Any


def _positional(target: Callable[..., Any]) -> list[str]:
    return [
        name for name, parameter in signature(target).items() if parameter.kind is not parameter.KEYWORD_ONLY
    ]


def _split_none(kind: Any) -> tuple[bool, Any]:
    """Whether None fits, and the type without it and without annotations that concern only values."""
    if get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind):
        rest = [part for part in get_args(kind) if part is not type(None)]
        return True, rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007
    return kind is Any, kind


def _is_structure(kind: Any) -> bool:
    """Whether a value of this type is a node: a dataclass, a protocol, or a call that waits."""
    if get_origin(kind) is Annotated:
        return False
    if get_origin(kind) is collections.abc.Callable:
        return True
    return inspect.isclass(kind) and (is_dataclass(kind) or bool(getattr(kind, "_is_protocol", False)))


def _takes_component(kind: Any) -> bool:
    if kind is Any:
        return False
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return inspect.isclass(plain) or get_origin(plain) is collections.abc.Callable


def _refuse_targets(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        if TARGET in value:
            raise ConfigError(f"{where}.{TARGET}", "nothing is made here", "give plain values")
        for key, item in value.items():
            _refuse_targets(item, f"{where}.{key}")
    elif isinstance(value, list):
        for place, item in enumerate(cast(list[Any], value)):
            _refuse_targets(item, f"{where}[{place}]")
