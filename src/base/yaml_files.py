"""YAML files as data: read safely, duplicate keys refused, every key traceable to its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from metashot.base.errors import DataError

MOST_NODES = 1_000_000
"""What a file may hold when its aliases are written out."""
MOST_LEVELS = 100
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):
    """Plain words as YAML 1.2 reads them: only true and false are booleans.

    YAML 1.1 also takes no, yes, on and off for booleans, 1:30 for 90, 010 for 8, 1_000 for a number and
    2020-01-01 for a date, so that label keys and options would not be what was written.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _tag, _pattern, _starts in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
):
    _first = [start if start != "\0" else "" for start in _starts]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A parsed YAML mapping that knows where its keys stand.

    Attributes:
        path: the file read.
        content: the mapping.
        lines: line number (from 1) of each key, by key path, for example `("source", "hub")`.
    """

    path: Path
    content: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def where(self, *keys: str) -> str:
        """`file:line` of the innermost of these keys that the file holds."""
        for depth in range(len(keys), 0, -1):
            if keys[:depth] in self.lines:
                return f"{self.path}:{self.lines[keys[:depth]]}"
        return str(self.path)


def read_yaml(path: Path) -> YamlFile:
    """Read one YAML mapping.

    Raises:
        DataError: the file cannot be read, is not YAML, is no mapping or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            str(path), f"cannot be read: {error}", "check the path and save it as UTF-8"
        ) from error
    try:
        node, content = load_bounded(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise DataError(
            place, f"not valid YAML: {problem}", "quote texts that hold ':', '#' or '{'"
        ) from error
    except ValueError as error:
        raise DataError(str(path), str(error), "write it out, in less") from None
    if not isinstance(content, dict) or node is None:
        raise DataError(str(path), "holds no mapping", "write `key: value` lines")
    lines: dict[tuple[str, ...], int] = {}
    _collect_lines(node, (), path, lines)
    return YamlFile(path, content, lines)


def load_bounded(text: str, loader_class: Any) -> tuple[Any, Any]:
    """A YAML text as its node and its value.

    Args:
        text: the file's content.
        loader_class: a safe loader.

    Raises:
        yaml.YAMLError: no YAML.
        ValueError: aliases that make one node a part of itself or the whole larger than `MOST_NODES`, too deep a
            nesting, or a number of thousands of digits.
    """
    _check_depth(text, loader_class)
    loader = loader_class(text)
    try:
        node = loader.get_single_node()
        if node is not None and _expanded(node, {}) > MOST_NODES:
            raise ValueError(f"its aliases write out to more than {MOST_NODES:,} nodes")
        return node, None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _check_depth(text: str, loader_class: Any) -> None:
    """Raise ValueError for a nesting that the parser, which recurses in C, would not survive."""
    depth = 0
    for event in yaml.parse(text, Loader=loader_class):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_LEVELS:
            raise ValueError(f"nests more than {MOST_LEVELS} levels")


def _expanded(node: Any, sizes: dict[int, int]) -> int:
    """Nodes below and with `node`, each alias counted as if it were written out."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ValueError("an alias makes a node a part of itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        size += sum(_expanded(key, sizes) + _expanded(value, sizes) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_expanded(item, sizes) for item in node.value)
    sizes[id(node)] = size
    return size


def _collect_lines(node: Any, prefix: tuple[str, ...], path: Path, lines: dict[tuple[str, ...], int]) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        keys = (*prefix, str(key_node.value))
        line = key_node.start_mark.line + 1
        if keys in lines:
            raise DataError(
                f"{path}:{line}",
                f'key "{keys[-1]}" stands twice (first on line {lines[keys]})',
                "keep one of them",
            )
        lines[keys] = line
        _collect_lines(value_node, keys, path, lines)
