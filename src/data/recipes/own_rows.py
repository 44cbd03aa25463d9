"""What a recipe asks of its rows where no released rule speaks: every field filled, every answer among the options.

A row that falls short is dropped under its reason before demonstrations are drawn, so that a draw of k is k rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from metashot.data.recipes.finalize import finish
from metashot.data.recipes.keys import CommonKeys, OptionMarks, ReleasedRule
from metashot.data.recipes.named_fields import read_fields
from metashot.data.recipes.rows import (
    AnsweredPair,
    AnyPair,
    BadRow,
    ChoicePair,
    Row,
    held,
    listed,
    lookup,
    stopped,
    template_fields,
)
from metashot.data.recipes.spec import (
    CauseEffect,
    Choices,
    CoinPair,
    GroupedChoices,
    ShuffledChoices,
    WrittenChoices,
)
from metashot.data.recipes.twins import is_void, number_of
from metashot.data.task import TaskType

_SHOWN_FIELDS = 6
_WITH_CHOICES = (Choices, ShuffledChoices, GroupedChoices, WrittenChoices, CauseEffect)


def compile_row_check(spec: CommonKeys) -> Callable[[Row], Row]:
    """A function that drops rows with a null, NaN or blank field, and fills optional ones with an empty text.

    It raises BadRow where a field that the recipe declares as a list is none.
    """
    members = isinstance(spec, GroupedChoices)
    fields = read_fields(spec)
    optional = {
        field: [path for path in fields if path == field or path.startswith(field + ".")] or [field]
        for field in spec.optional
    }
    filled = [path for paths in optional.values() for path in paths]
    paths = [path for path in fields if path not in filled]
    lists = {path: words for path in fields if (words := spec.fields.get(path, "")).startswith("list")}
    numbers = frozenset(path for path in fields if spec.fields.get(path) == "number")

    def check(row: Row) -> Row:
        if filled:
            row = {**row, **{path: "" for path in filled if is_void(held(row, path))}}
        for path in paths:
            value = row[path] if path in row else lookup(row, path)
            if value.__class__ is str:
                if not value or value.isspace():
                    raise stopped(f'field "{path}" is blank')
                if path in numbers and value.strip().lower() == "nan":
                    raise stopped(f'field "{path}" is NaN')
            elif is_void(value):
                raise stopped(f'field "{path}" is {"null" if value is None else "NaN"}')
            if path in lists:
                _check_list(value, path, lists[path])
        return row

    def check_group(row: Row) -> Row:
        return {"rows": [check(member) for member in row["rows"]]}

    return check_group if members else check


def _check_list(value: Any, path: str, words: str) -> None:
    """Hold a value to `list of texts`, `list of numbers` or `list of lists of texts`."""
    members = listed(value, path)
    inner = words.partition(" of ")[2]
    for member in members:
        if inner.startswith("list"):
            _check_list(member, path, inner)
        elif inner.startswith("number") and not is_void(member) and number_of(member) is None:
            raise BadRow(
                f'field "{path}" holds {member!r} in a list of numbers', "correct the row, or the fields"
            )


def compile_pair_check(spec: CommonKeys, options: tuple[str, ...]) -> Callable[[AnyPair], None]:
    """A function that drops pairs whose text or options cannot be scored.

    Args:
        spec: the recipe.
        options: its fixed options, made a tuple once by the caller.
    """
    is_cut = isinstance(spec.options, OptionMarks) and not isinstance(spec, _WITH_CHOICES)
    has_choices = isinstance(spec, _WITH_CHOICES)
    known = frozenset(options)

    def check(pair: AnyPair) -> None:
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
            return
        if isinstance(pair, AnsweredPair):
            for reference in pair.references:
                _check_characters("answers", reference)
        if is_cut:
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

    A label word that is none of the options could only fail later, in every row that has it, and a template without a
    field makes all inputs equal.
    """
    for key in ("input", "context"):
        template = getattr(spec, key, None)
        if template is None or (key == "context" and not template):
            continue
        if not template_fields(template):
            known = ", ".join(f"{{{path}}}" for path in list(spec.fields)[:_SHOWN_FIELDS])
            return key, BadRow(
                f"{template!r} names no field, so it is the same for every row", f"write {known}"
            )
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
