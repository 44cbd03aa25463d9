"""What a recipe asks of its rows where no released rule speaks: every field filled, every answer among the options.

A row that falls short is dropped under its reason before demonstrations are drawn, so that a draw of k is k rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from metashot.data.recipes.finalize import finish
from metashot.data.recipes.keys import CommonKeys, OptionMarks, ReleasedRule
from metashot.data.recipes.named_fields import read_fields
from metashot.data.recipes.rows import BadRow, ChoicePair, Pair, Row, lookup, stopped
from metashot.data.recipes.spec import (
    CauseEffect,
    Choices,
    CoinPair,
    GroupedChoices,
    ShuffledChoices,
    WrittenChoices,
)
from metashot.data.task import TaskType

_WITH_CHOICES = (Choices, ShuffledChoices, GroupedChoices, WrittenChoices, CauseEffect)


def compile_row_check(spec: CommonKeys) -> Callable[[Row], Row]:
    """A function that drops rows with a null, NaN or blank field, and fills optional ones with an empty text."""
    members = isinstance(spec, GroupedChoices)
    optional = frozenset(spec.optional)
    fields = [path for path in read_fields(spec) if path != getattr(spec, "group_by", None)]
    paths = [(path, "." in path) for path in fields if path not in optional]

    def check(row: Row) -> Row:
        if optional:
            row = {**row, **{field: "" for field in optional if is_void(row.get(field))}}
        for path, is_deep in paths:
            value = lookup(row, path) if is_deep else row.get(path, "-")
            if value.__class__ is str:
                if not value or value.isspace():
                    raise stopped(f'field "{path}" is blank')
            elif is_void(value):
                raise stopped(f'field "{path}" is {"null" if value is None else "NaN"}')
        return row

    def check_group(row: Row) -> Row:
        return {"rows": [check(member) for member in row["rows"]]}

    return check_group if members else check


def is_void(value: Any) -> bool:
    """Null, or NaN, which tables write where a number is missing."""
    return value is None or (isinstance(value, float) and value != value)


def compile_pair_check(spec: CommonKeys, options: tuple[str, ...]) -> Callable[[Pair | ChoicePair], None]:
    """A function that drops pairs whose text or options cannot be scored.

    Args:
        spec: the recipe.
        options: its fixed options, made a tuple once by the caller.
    """
    is_cut = isinstance(spec.options, OptionMarks) and not isinstance(spec, _WITH_CHOICES)
    has_choices = isinstance(spec, _WITH_CHOICES)
    known = frozenset(options)

    def check(pair: Pair | ChoicePair) -> None:
        text, output = pair[0], pair[1]
        if not text or text.isspace():
            raise stopped("the input is blank")
        if not output or output.isspace():
            raise stopped("the answer is blank")
        if not text.isascii():
            _check_characters("input", text)
        if not output.isascii():
            _check_characters("answer", output)
        if isinstance(pair, ChoicePair):
            check_options(pair.options, output, has_choices)
        elif is_cut:
            check_options(finish(spec, (), pair).options, output, has_choices)
        elif known and output not in known:
            raise stopped("the answer is not among the options")

    return check


def check_options(options: tuple[str, ...], output: str, has_choices: bool) -> None:
    """Drop a row whose own options cannot be ranked.

    Raises:
        Dropped: none or one, a repeated or blank one, half a character, or the answer is not among them.
    """
    if not options:
        if has_choices:
            raise stopped("the list of choices is empty")
        return
    if len(options) == 1:
        raise stopped("only one option")
    if len(set(options)) < len(options):
        raise stopped("an option stands twice")
    for option in options:
        if not option or option.isspace():
            raise stopped("an option is blank")
        if not option.isascii():
            _check_characters("options", option)
    if output not in options:
        raise stopped("the answer is not among the options")


def _check_characters(what: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise stopped(f"half a character (a lone surrogate) in the {what}") from None


def check_own_recipe(spec: CommonKeys) -> tuple[str, BadRow] | None:
    """The key at fault and what is wrong with it, for faults that show without a row.

    A label word that is none of the options could only fail later, in every row that has it.
    """
    if not isinstance(spec.options, list):
        return None
    ranked = spec.task_type is not TaskType.FREE_FORM
    if ranked and not (spec.options or isinstance(spec, _WITH_CHOICES) or spec.follows(ReleasedRule.STOPS)):
        return "options", BadRow(
            f"is empty, but the task is {spec.task_type.value}",
            "list the answers to rank, or set task_type: free-form",
        )
    fault = _faulty_option(spec.options)
    if fault is not None:
        return "options", fault
    for key, words in _label_words(spec):
        outside = [word for word in words if spec.options and word not in spec.options]
        if outside:
            known = ", ".join(spec.options)
            problem = f'"{outside[0]}" is not among the options ({known})'
            return key, BadRow(problem, f"correct {key} or options")
    return None


def _faulty_option(options: list[str]) -> BadRow | None:
    for option in options:
        if options.count(option) > 1:
            return BadRow(f'option "{option}" stands twice', "list every option once")
        if not option.strip():
            return BadRow(f"option {option!r} is blank", "give every option a word")
    return None


def _label_words(spec: CommonKeys) -> Iterator[tuple[str, list[str]]]:
    """(key, the outputs that it can give)."""
    for key in ("labels", "below", "above"):
        yield key, list(getattr(spec, key, {}).values())
    yield "answers", list(spec.answers) if isinstance(spec, CoinPair) else []
