"""The parameters of `InContextClassifier`: their defaults, and what a value may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from metashot.base.components.choices import named
from metashot.base.errors import ConfigError, suggestion
from metashot.data.tasks.selected_source import Order, Selection, Strategy
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import ModelConfig, named_model
from metashot.engine.scoring.kept import KEPT_MB
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.prompting.methods import Method, named_method
from metashot.icl.scoring.cell import Truncation

DEFAULTS: dict[str, Any] = {
    "method": "direct", "demonstrations": (), "truncation": Truncation.SHARED, "prompt": None, "k": None,
    "selection": Strategy.PROTOCOL, "order": 0, "seed": 100, "keep_mb": KEPT_MB,
}  # fmt: skip
"""All but the model."""


def checked(name: str, value: Any) -> Any:
    """A parameter's value: names of models and prompts become what they name.

    Raises:
        ConfigError: a value that the parameter cannot take.
    """
    check = _CHECKS.get(name)
    return value if check is None else check(value)


def _model(given: Any) -> LazyLanguageModel:
    if isinstance(given, str):
        return LazyLanguageModel(named_model(given))
    if isinstance(given, ModelConfig):
        return LazyLanguageModel(given)
    if not isinstance(given, LazyLanguageModel):
        raise ConfigError(
            "model", f"is {type(given).__name__}", "give a name, or use InContextClassifier.from_pretrained"
        )
    return given


def _method(given: Any) -> Method | str:
    if isinstance(given, str):
        named_method(given)
    elif not isinstance(given, Method):
        raise ConfigError("method", f"is {type(given).__name__}", "give a name of conf/method, or a Method")
    return given


def _prompt(given: Any) -> PromptConfig | None:
    if isinstance(given, str):
        return named("prompt", given)
    if given is not None and not isinstance(given, PromptConfig):
        raise ConfigError("prompt", f"is {type(given).__name__}", "give a name of conf/prompt, or a format")
    return given


def _one_of(name: str, kind: type[Truncation | Strategy | Order]) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        if isinstance(given, Selection):
            return given
        if given not in [one.value for one in kind]:
            raise ConfigError(
                name, f"no choice {given!r}", suggestion(str(given), [one.value for one in kind])
            )
        return kind(given)

    return check


def _count(name: str, *, optional: bool = False) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        if given is None and optional:
            return given
        if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 0:
            raise ConfigError(name, f"must be a whole number, 0 or more, got {given!r}", "give one")
        return int(given)

    return check


def _order(given: Any) -> int | Order:
    return _one_of("order", Order)(given) if isinstance(given, str) else _count("order")(given)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "model": _model,
    "method": _method,
    "prompt": _prompt,
    "truncation": _one_of("truncation", Truncation),
    "selection": _one_of("selection", Strategy),
    "k": _count("k", optional=True),
    "order": _order,
    "seed": _count("seed"),
    "keep_mb": _count("keep_mb"),
}
