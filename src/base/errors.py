"""The errors a user can cause and mend: each names the place, the fault and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum

_LISTED = 20
"""Names that an error lists before it breaks off."""


class ExitStatus(IntEnum):
    """What a command leaves behind for the shell."""

    DONE = 0
    """Finished; of a sweep: every job."""
    FAILED = 1
    """An error that is no mistake of the command line: a job of a sweep failed, the disk is full, a traceback."""
    MISTAKE = 2
    """A value, file or key that the user can mend: one line names it, the rule and the way out."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C; the same command goes on."""
    TERMINATED = 143
    """Stopped by SIGTERM; the same command goes on."""


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
