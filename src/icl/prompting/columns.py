"""Inputs, options and demonstrations in the forms in which people hold them, made lists of texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from metashot.base.errors import DataError

_MISSING = ("NaTType", "NAType")
_PAIR = 'give {"input": ..., "output": ...}'


def column(name: str, values: Any) -> list[Any]:
    """The members of a list, tuple, array, tensor, pandas Series, one-column table, `datasets.Dataset` or generator.

    Raises:
        DataError: one string or other single value, a mapping, or a table of several columns.
    """
    if isinstance(values, str | bytes):
        raise DataError(name, f"is one string, {values!r}", f"give a list: [{values!r}]")
    columns = getattr(values, "column_names", None)  # datasets
    if columns is None:
        columns = getattr(values, "columns", None)  # pandas, polars
    if columns is not None:
        names = [str(one) for one in columns]
        if len(names) != 1:
            raise DataError(
                name,
                f"is a table with the columns {', '.join(names)}",
                f"give the one that is meant: table[{names[0]!r}]",
            )
        return column(name, values[next(iter(columns))])
    if hasattr(values, "to_pylist"):  # pyarrow
        return values.to_pylist()
    if _of_torch(values):
        values = values.detach().cpu().numpy()
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise DataError(name, f"is a {type(values).__name__}", "give a list of texts")
    shape = getattr(values, "shape", None)
    if shape == ():
        raise DataError(name, f"is a single value, {_shown(values)}", "give a list of texts")
    if shape is not None and len(shape) == 2 and shape[1] == 1:
        return [row[0] for row in values]
    return [_plain(member) for member in values]


def texts(name: str, values: Any) -> list[str]:
    """A column of which every member is a text.

    Raises:
        DataError: the first member that is none, with its position.
    """
    members = column(name, values)
    for place, member in enumerate(members):
        if not isinstance(member, str):
            problem = f"is missing ({member!r})" if is_missing(member) else f"is no text but {_shown(member)}"
            raise DataError(f"{name}[{place}]", problem, "leave it out, or make it a text with str()")
        check_encodable(f"{name}[{place}]", member)
    return [str(member) for member in members]


def check_encodable(where: str, text: str) -> None:
    """Raise DataError for half of a surrogate pair, which no encoding writes and no tokenizer reads."""
    at = next((place for place, one in enumerate(text) if "\ud800" <= one <= "\udfff"), None)
    if at is not None:
        raise DataError(
            where,
            f"holds a lone surrogate, {text[at]!a}, at character {at}",
            "read the text with its own encoding, or take it out with text.encode(errors='ignore').decode()",
        )


def answers(name: str, values: Any) -> list[Hashable]:
    """A column of answers of any hashable type, as they were given.

    Raises:
        DataError: a member that is missing or unhashable, with its position.
    """
    members = column(name, values)
    for place, member in enumerate(members):
        if is_missing(member):
            raise DataError(f"{name}[{place}]", f"is missing ({member!r})", "leave it out")
        if not isinstance(member, Hashable):
            raise DataError(
                f"{name}[{place}]", f"is {_shown(member)}", "answers are texts or other hashable values"
            )
        check_encodable(f"{name}[{place}]", str(member))
    return members


def option_texts(options: Sequence[Hashable]) -> list[str]:
    """What the model sees of each option.

    Raises:
        DataError: none, or two that read the same.
    """
    if not options:
        raise DataError("options", "is empty", "give the candidate answers")
    shown = [str(option) for option in options]
    for place, text in enumerate(shown):
        if text in shown[:place]:
            first = options[shown.index(text)]
            if first == options[place]:
                raise DataError(
                    "options", f"holds an answer twice: {list(options)!r}", "list every option once"
                )
            raise DataError(
                "options", f"{first!r} and {options[place]!r} read the same", "give them different texts"
            )
    return shown


def demonstration_pairs(values: Any) -> list[tuple[str, Hashable]]:
    """Demonstrations as (input, output): mappings, pairs, or a table with these two columns.

    Raises:
        DataError: one without `input` or `output`, or whose input is no text, with its position.
    """
    names = getattr(values, "column_names", None)
    if names is None:
        names = getattr(values, "columns", None)
    if names is not None or isinstance(values, Mapping):
        held = list(values if names is None else names)
        if "input" not in held or "output" not in held:
            raise DataError(
                "demonstrations",
                f"has the columns {', '.join(map(str, held))}",
                "call two of them input and output",
            )
        inputs, outputs = column("input", values["input"]), column("output", values["output"])
        check_lengths("demonstrations", len(inputs), len(outputs))
        values = list(zip(inputs, outputs, strict=True))
    pairs: list[tuple[str, Hashable]] = []
    for place, one in enumerate(values):
        where = f"demonstrations[{place}]"
        if isinstance(one, Mapping):
            lacking = [key for key in ("input", "output") if key not in one or is_missing(one[key])]
            if lacking:
                raise DataError(where, f"has no text {' and '.join(lacking)}", _PAIR)
            one = (one["input"], one["output"])
        if isinstance(one, str) or not isinstance(one, Sequence) or len(one) != 2:
            raise DataError(where, f"is {_shown(one)}", _PAIR)
        texts(f"{where} input", [one[0]])
        answers(f"{where} output", [one[1]])
        pairs.append((one[0], one[1]))
    return pairs


def check_lengths(where: str, inputs: int, outputs: int) -> None:
    """Raise DataError for unequally many inputs and answers."""
    if inputs != outputs:
        raise DataError(where, f"got {inputs} inputs and {outputs} answers", "give as many of each")


def is_missing(value: Any) -> bool:
    """None, NaN, and what pandas writes for them."""
    if value is None or type(value).__name__ in _MISSING:
        return True
    return isinstance(value, float) and value != value


def _of_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"


def _plain(member: Any) -> Any:
    """What a scalar of pyarrow, a tensor or array of one value holds; anything else as it is."""
    if hasattr(member, "as_py"):
        return member.as_py()
    if getattr(member, "shape", None) == () and (_of_torch(member) or type(member).__name__ == "ndarray"):
        return member.item()
    return member


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '...'}"
