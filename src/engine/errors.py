"""The error tree: `MetashotError` and its branches (`DataError` lives below, in `data.errors`)."""

from __future__ import annotations

from metashot.data.errors import DataError, MetashotError

__all__ = ["CheckpointError", "ConfigError", "DataError", "MetashotError", "ModelError", "OutputError"]


class ConfigError(MetashotError):
    """A config key has a value outside its rule, or contradicts another key."""


class ModelError(MetashotError):
    """A model cannot be found, converted, loaded or trusted (for example NaN logits)."""


class CheckpointError(MetashotError):
    """A checkpoint is missing, damaged, or belongs to another model or config."""


class OutputError(MetashotError):
    """A result cannot be written or read back: full or read-only disk, damaged store."""
