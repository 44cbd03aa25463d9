"""What a key is, read from the declaration that takes it: docstrings under fields, `Args:` of functions, types in words."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_SECTION = re.compile(r"^(Attributes|Args):$")
_ENTRY = re.compile(r"^(\w+): (.*)$")
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}
_BOUNDS = (("ge", "{} or more"), ("gt", "above {}"), ("le", "{} or less"), ("lt", "below {}"))
_MOST = 10**6
"""Larger bounds keep nonsense out and are not worth a reader's time."""


@lru_cache(maxsize=256)
def documented(target: Any) -> Mapping[str, str]:
    """The text of each field of a class, base classes included, or of each argument of a function."""
    found: dict[str, str] = {}
    for source in reversed(target.__mro__) if inspect.isclass(target) else [target]:
        found |= dict(_entries(inspect.cleandoc(source.__doc__ or "")))
        if inspect.isclass(source) and (is_dataclass(source) or issubclass(source, Enum)):
            found |= dict(_below_fields(source))
    return found


def summary(target: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(target.__doc__ or "").partition("\n\n")[0].split())


def in_words(kind: Any) -> str:
    """What an annotation takes, for people: `whole number, 1 or more`, `auto | never`, `list of text`, `null`."""
    notes = [note for note in getattr(kind, "__metadata__", ())]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    words = _plain_words(kind)
    bounds = list(_bounds(notes))
    return f"{words}, {' and '.join(bounds)}" if bounds else words


def _plain_words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "null"
    if kind in _WORDS:
        return _WORDS[kind]
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return " | ".join(str(member.value) for member in kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(part) for part in arguments))
    if origin in (tuple, list, collections.abc.Sequence):
        return f"list of {in_words(arguments[0])}" if arguments else "list"
    if origin in (dict, collections.abc.Mapping):
        return f"map of {in_words(arguments[1])}" if arguments else "map"
    if origin is collections.abc.Callable or inspect.isclass(kind):
        return "component"
    return "anything"


def _bounds(notes: list[Any]) -> Iterator[str]:
    for note in notes:
        for rule in note.metadata if isinstance(note, FieldInfo) else ():
            for key, words in _BOUNDS:
                value = getattr(rule, key, None)
                if value is not None and abs(value) < _MOST:
                    yield words.format(f"{value:g}")


def _entries(docstring: str) -> Iterator[tuple[str, str]]:
    """The entries of the sections `Attributes:` and `Args:`."""
    name, text, inside = "", "", False
    for line in docstring.split("\n"):
        if not line.startswith(" ") and line.strip():
            inside = _SECTION.match(line) is not None
        elif inside and (entry := _ENTRY.match(line.removeprefix("    "))):
            if name:
                yield name, _sentence(text)
            name, text = entry[1], entry[2]
        elif inside and line.strip():
            text += f" {line.strip()}"
    if name:
        yield name, _sentence(text)


def _below_fields(target: type) -> Iterator[tuple[str, str]]:
    """The docstrings that stand under the fields of a dataclass, or under the members of an enum."""
    try:
        source = inspect.getsource(target)
    except (OSError, TypeError):  # made by code, or on a command line
        return
    (node,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(node, ast.ClassDef)
    for field, below in zip(node.body, node.body[1:], strict=False):
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            name = field.target if isinstance(field, ast.AnnAssign) else None
            name = field.targets[0] if isinstance(field, ast.Assign) else name
            if isinstance(name, ast.Name):
                yield name.id, " ".join(str(below.value.value).split())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] if text[:1].isalpha() else text


def meanings(kind: Any) -> Mapping[str, str]:
    """What each choice of an enum in an annotation means, where its members say it."""
    found: dict[str, str] = {}
    for part in _parts(kind):
        if inspect.isclass(part) and issubclass(part, Enum):
            texts = documented(part)
            found |= {str(member.value): texts[member.name] for member in part if member.name in texts}
    return found


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from _parts(part)
