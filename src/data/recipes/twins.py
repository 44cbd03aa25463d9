"""When a value of a file is what a recipe calls it: one rule for labels, drop rules, indices and marks of right answers.

`2` and `'2'` are the same, and so are `1` and `true`: files write one value in several ways. Two different texts
never are (`'07'` and `'7'` are two labels), and what is written alike goes before a twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

from metashot.data.recipes.rows import (
    BadRow,
)
from metashot.data.sources.layout import WrittenTruth

_TRUE, _FALSE = frozenset({"true", "yes"}), frozenset({"false", "no"})
_MOST_DIGITS = 4000
_SHOWN = 60
_REMEMBERED = 10_000


def is_void(value: Any) -> bool:
    """Null, or NaN, which tables write where a number is missing."""
    return value is None or (isinstance(value, float) and value != value)


def number_of(value: Any) -> int | float | None:
    """The number that a value is or that its text writes; None for others."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == int(value) else float(value)
    text = value.strip() if isinstance(value, str) and len(value) <= _MOST_DIGITS else ""
    for kind in (int, float) if text and "_" not in text else ():
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if isfinite(number) else None
    return None


def is_same(value: Any, known: Any) -> bool:
    """Whether a value of a file is `known`, written alike or as a twin; null, NaN and an empty text are the same."""
    return _is_alike(value, known) or _is_twin(value, known)


def known_value(
    known: Iterable[Any],
    field: str,
    says: str = "known: {known}: correct the value, or leave such rows out with a drop rule",
) -> Callable[[Any], Any]:
    """A function from a value of `field` to the one of `known` that it is.

    It raises BadRow for any other value, and for a twin of two of them.
    """
    choices = list(known)
    found: dict[tuple[type, Any], Any] = {}

    def choose(value: Any) -> Any:
        key = (value.__class__, value)
        try:
            return found[key]
        except (KeyError, TypeError):
            pass
        for is_it in (_is_alike, _is_twin):
            matching = [choice for choice in choices if is_it(value, choice)]
            if len(matching) == 1:
                if len(found) < _REMEMBERED and isinstance(value, str | int | float):
                    found[key] = matching[0]
                return matching[0]
        raise _unknown(value, choices, field, says)

    return choose


def _unknown(value: Any, known: Sequence[Any], field: str, says: str) -> BadRow:
    shown = str(value) if isinstance(value, int | float | Decimal) else repr(value)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    problem = f'field "{field}" holds the unknown label {shown}'
    return BadRow(problem, says.replace("{known}", ", ".join(map(repr, known)) or "none"))


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool | WrittenTruth)


def _is_alike(value: Any, known: Any) -> bool:
    return bool(value == known) and _is_truth(value) == _is_truth(known)


def _is_twin(value: Any, known: Any) -> bool:
    if isinstance(value, str) and isinstance(known, str):
        return False
    if is_void(value) or is_void(known):
        return all(is_void(one) or one == "" for one in (value, known))
    if isinstance(value, list | dict) or isinstance(known, list | dict):
        return False
    if str(value) == str(known):
        return True
    truth, other = _truth_of(value), _truth_of(known)
    if _is_truth(value) or _is_truth(known) or (truth is not None and other is not None):
        return truth is not None and truth == other
    number = number_of(value)
    return number is not None and number == number_of(known)


def _truth_of(value: Any) -> bool | None:
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE | _FALSE:
        return word in _TRUE
    number = number_of(value)
    return bool(number) if number is not None and number in (0, 1) else None
