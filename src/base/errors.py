"""The errors a user can cause and mend: each names the place, the fault and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 20
"""Names that an error lists before it breaks off."""


class MetashotError(Exception):
    """A fault in what the user gave; `run.py` prints it as one line and exits with status 2.

    Args:
        where: the config key, or the file with its line (`poem.jsonl:3`).
        problem: what is wrong, with the offending value.
        remedy: what the user can do about it.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.where = where
        self.problem = problem
        self.remedy = remedy
        super().__init__(where, problem, remedy)

    def __str__(self) -> str:
        return f"{self.where}: {self.problem} ({self.remedy})"


class DataError(MetashotError):
    """A task, file, record or recipe breaks a rule of the data layer."""


class ConfigError(MetashotError):
    """A config key has a value outside its rule, or contradicts another key."""


class ModelError(MetashotError):
    """A model cannot be found, converted, loaded or trusted (for example NaN logits)."""


class CheckpointError(MetashotError):
    """A checkpoint is missing, damaged, or belongs to another model or config."""


class OutputError(MetashotError):
    """A result cannot be written or read back: full or read-only disk, damaged store."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for a near miss, else what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"one of: {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"
