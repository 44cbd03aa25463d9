"""A classifier as a JSON file: its parameters by class and fields, its examples, and no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from metashot.base.components.binding import TARGET, bind_call, make
from metashot.base.components.targets import import_target
from metashot.base.errors import DataError
from metashot.base.files import write_json

_FORMAT = "metashot classifier 1"


def write_classifier(path: Path, parameters: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """Write a classifier.

    Args:
        path: the file; replaced as a whole.
        parameters: values and dataclasses by name.
        held: examples and answers.

    Raises:
        DataError: a value that JSON does not hold.
    """
    content = {
        "format": _FORMAT,
        "parameters": {name: _plain(value, name) for name, value in parameters.items()},
        "held": _plain(held, "demonstrations"),
    }
    write_json(path, content)


def read_classifier(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and examples of a file.

    Raises:
        DataError: not such a file.
        ConfigError: a class in it that is not trusted.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        parameters, held = dict(content["parameters"]), dict(content["held"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            str(path), f"is no file of InContextClassifier.save: {error}", "name one that save wrote"
        ) from error
    return {name: _made(value, name) for name, value in parameters.items()}, held


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        return value.value
    if not isinstance(value, type) and is_dataclass(value):
        kind: Any = type(value)
        own = {
            one.name: _plain(getattr(value, one.name), f"{where}.{one.name}")
            for one in fields(value)
            if one.init
        }
        return {TARGET: f"{kind.__module__}.{kind.__qualname__}", **own}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one, f"{where}.{name}") for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{where}[{place}]") for place, one in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise DataError(
        where,
        f"is {type(value).__name__} {value!r}, which JSON does not hold",
        "use texts, numbers or booleans",
    )


def _made(value: Any, where: str) -> Any:
    if isinstance(value, Mapping) and TARGET in value:
        node = {str(name): one for name, one in value.items()}
        return make(bind_call(import_target(str(node.pop(TARGET)), where), node, where))
    return value
