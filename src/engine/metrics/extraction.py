"""What of a generated text is its answer: one class a rule (`method/extract=<name>`).

A rule of one's own is any object that takes a text and gives an answer, or None where the text holds none; name its
class as `_target_` of `method.extract`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol

from metashot.base.errors import ConfigError

NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+\b)?|(?<![\w.])[-+]?\.\d+"
)
"""A decimal number as it stands in a text: `-3`, `1,200`, `0.5`, `.5`, `2e6`."""


class Extract(Protocol):
    """Finds the answer in a text."""

    def __call__(self, text: str) -> str | None:
        """The answer, or None where the text holds none."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """The text itself, without white space around it."""

    def __call__(self, text: str) -> str | None:
        """The text."""
        return text.strip()


@dataclass(frozen=True, slots=True)
class FirstLine:
    """The first line that is not blank."""

    def __call__(self, text: str) -> str | None:
        """The line, without white space around it."""
        return next((line.strip() for line in text.splitlines() if line.strip()), None)


@dataclass(frozen=True, slots=True)
class LastNumber:
    """The last number, without the commas between its thousands."""

    def __call__(self, text: str) -> str | None:
        """The number as text."""
        found = NUMBER.findall(text)
        return found[-1].replace(",", "") if found else None


@dataclass(frozen=True, slots=True)
class Boxed:
    r"""What stands in the last `\\boxed{...}`, as answers of mathematics are marked; braces may be nested."""

    def __call__(self, text: str) -> str | None:
        """The content of the box."""
        for start in (match.end() for match in reversed(list(re.finditer(r"\\boxed\s*\{", text)))):
            depth = 1
            for place in range(start, len(text)):
                depth += {"{": 1, "}": -1}.get(text[place], 0)
                if not depth:
                    return text[start:place].strip()
        return None


@dataclass(frozen=True, slots=True)
class Regex:
    """What a regular expression of Python matches: its first group that took part, or all of it without groups."""

    pattern: str
    """For example `answer is (-?[0-9.]+)`; `^` and `$` are the ends of a line."""
    which: Literal["first", "last"] = "first"
    """Which of several matches."""
    ignore_case: bool = False
    """Whether capital and small letters are the same."""

    def __post_init__(self) -> None:
        """Read the pattern.

        Raises:
            ConfigError: it is none.
        """
        try:
            self._compiled()
        except re.error as error:
            raise ConfigError(
                "method.extract.pattern", f"{self.pattern!r} is no regular expression: {error}", "mend it"
            ) from None

    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.MULTILINE | (re.IGNORECASE if self.ignore_case else 0))

    def __call__(self, text: str) -> str | None:
        """The matched text, without white space around it."""
        found = list(self._compiled().finditer(text))
        if not found:
            return None
        match = found[0 if self.which == "first" else -1]
        taken = [group for group in match.groups() if group is not None]
        return (taken[0] if taken else match[0]).strip()
