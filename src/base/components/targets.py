"""Which code a config may name: this package, the libraries it builds on, and what the user trusts besides."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from metashot.base.errors import ConfigError

LIBRARIES = ("metashot", "torch", "transformers", "bitsandbytes", "peft", "accelerate")
TRUSTED_VARIABLE = "METASHOT_TRUSTED_TARGETS"
"""Environment variable with further packages, separated by commas."""


def trusted_packages() -> tuple[str, ...]:
    """The packages whose classes and functions a `_target_` may name."""
    further = os.environ.get(TRUSTED_VARIABLE, "").split(",")
    return (*LIBRARIES, *(name.strip() for name in further if name.strip()))


def import_target(name: str, where: str) -> Callable[..., Any]:
    """The class or function called `name`.

    Nothing is imported before its package is found to be trusted, and an object that a trusted module only
    imports from elsewhere is refused too.

    Raises:
        ConfigError: a package that is not trusted, a name that cannot be imported, or something not callable.
    """
    _check_trusted(name, name, where)
    module, _, attribute = name.rpartition(".")
    try:
        target = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(where, f"cannot import {name!r}: {reason}", "check the dotted name") from None
    if not callable(target):
        raise ConfigError(where, f"{name!r} is no class or function", "name one")
    _check_trusted(str(getattr(target, "__module__", None) or ""), name, where)
    return target


def _check_trusted(package: str, name: str, where: str) -> None:
    trusted = trusted_packages()
    if not any(package == root or package.startswith(f"{root}.") for root in trusted):
        raise ConfigError(
            where,
            f"{name!r} is in no trusted package: {', '.join(trusted)}",
            f"set {TRUSTED_VARIABLE}={name.partition('.')[0]} in the environment to run code of your own",
        )
