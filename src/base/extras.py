"""Optional packages: which extra installs each, and the one way to import them."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from metashot.base.errors import ConfigError

EXTRAS = {
    "bitsandbytes": ("bitsandbytes", "train"),
    "bm25s": ("bm25s", "retrieval"),
    "cmaes": ("cmaes", "sweep"),
    "datasets": ("datasets", "hub"),
    "english_words": ("english-words", "train"),
    "httpx": ("httpx", "hub"),
    "lm_eval": ("lm-eval", "harness"),
    "mlflow": ("mlflow", "mlflow"),
    "openai": ("openai", "server"),
    "openpyxl": ("openpyxl", "excel"),
    "optuna": ("optuna", "sweep"),
    "peft": ("peft", "train"),
    "rouge_score": ("rouge-score", "generate"),
    "sentence_transformers": ("sentence-transformers", "supmer"),
    "sentencex": ("sentencex", "supmer"),
    "sklearn": ("scikit-learn", "supmer"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "torchmetrics": ("torchmetrics", "generate"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
"""Module -> the package that holds it, and metashot's extra that installs the package."""


def import_extra(module: str, where: str, name: str = "") -> Any:
    """Import a module of an optional package, or something in it.

    Args:
        module: its full name; the first part is a key of `EXTRAS`.
        where: the config key, choice or file that needs it.
        name: what of the module is wanted; empty for the module itself.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    try:
        found = importlib.import_module(module)
        if name and not hasattr(found, name):
            raise ImportError(f"cannot import name {name!r} from {module}")
        return getattr(found, name) if name else found
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(error.name or " ")
        raise _refusal(module, where, "" if missing else str(error)) from error


def require_extra(module: str, where: str) -> None:
    """Look for an optional package without importing it, which takes seconds for some.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec(module) is None:
        raise _refusal(module, where, "")


def _refusal(module: str, where: str, reason: str) -> ConfigError:
    package, extra = EXTRAS[module.partition(".")[0]]
    fault = f"which cannot be imported ({reason})" if reason else "which is not installed"
    return ConfigError(where, f"needs the package {package}, {fault}", f"pip install 'metashot[{extra}]'")
