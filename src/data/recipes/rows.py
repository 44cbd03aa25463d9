"""Reading source rows: field paths, texts, templates, and the two ways in which a row can fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from metashot.data.recipes.keys import CleanStep

Row = Mapping[str, Any]
"""One raw row of a source: column to value."""
TextOf = Callable[[Row], str]
TextChange = Callable[[str], str]

_SLOT = re.compile(r"\{([^{}]+)\}")


class Pair(NamedTuple):
    """Raw input and output of an example, before the last step that all tasks share."""

    input: str
    output: str


class ChoicePair(NamedTuple):
    """A pair whose options come out of the row, one by one."""

    input: str
    output: str
    options: tuple[str, ...]


class Dropped(Exception):
    """A row that becomes no example.

    Args:
        reason: what is the matter with it; counted in the manifest.
        published: True if the published data leaves it out as well, False if the original stopped on it.
    """

    def __init__(self, reason: str, *, published: bool) -> None:
        self.reason = reason
        self.published = published
        super().__init__(reason)


class BadRow(Exception):
    """A row that does not fit its recipe: the user's source or recipe is wrong."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(problem)


def left_out(reason: str) -> Dropped:
    """A row that the published data leaves out."""
    return Dropped(reason, published=True)


def stopped(reason: str) -> Dropped:
    """A row on which the original program stopped."""
    return Dropped(reason, published=False)


def lookup(row: Row, path: str) -> Any:
    """The value at a dotted path; a list on the way gives the list of its members' values.

    `choices.text` reads a struct of lists, `output.answer` a list of structs.

    Raises:
        BadRow: the row has no such field.
    """
    value: Any = row
    for depth, key in enumerate(path.split(".")):
        value = _member(value, key, path, depth)
    return value


def text_of(value: Any, path: str) -> str:
    """A field's text: lists are joined with blanks, numbers written out.

    Raises:
        Dropped: the value is null, on which the original's string joining stopped.
        BadRow: the value is a struct.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise stopped(f'field "{path}" is null')
    if isinstance(value, float) and value != value:
        raise stopped(f'field "{path}" is NaN')
    if isinstance(value, (list, tuple)):
        return " ".join(text_of(item, path) for item in value)
    if isinstance(value, Mapping):
        raise BadRow(
            f'field "{path}" is a struct with {sorted(map(str, value))}',
            f'name a member, such as "{path}.text"',
        )
    return str(value)


def strings(value: Any, path: str) -> list[str]:
    """A list field as texts; the keys of a struct; null members are empty texts."""
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise BadRow(f'field "{path}" holds {value!r}, not a list', "name a list field")
    return ["" if item is None else text_of(item, path) for item in value]


def template_fields(template: str) -> list[str]:
    """Field paths that a template names, in order."""
    return _SLOT.findall(template)


def compile_text(template: str, clean: Iterable[CleanStep], whole: str = "input") -> TextOf:
    """Turn a template and its cleaning steps into a function from row to text.

    Steps whose `in` names a field run on that field before it enters the text; steps in `whole` run on the
    finished text.
    """
    steps = list(clean)
    parts = _SLOT.split(template)
    literals, paths = parts[::2], parts[1::2]
    readers = [_field_reader(path, [step for step in steps if path in step.places]) for path in paths]
    ending = [step for step in steps if whole in step.places]
    finish = compile_clean(ending)
    if len(readers) == 1 and not any(literals):
        only = readers[0]
        return (lambda row: finish(only(row))) if ending else only

    def render(row: Row) -> str:
        pieces = [literals[0]]
        for reader, literal in zip(readers, literals[1:], strict=True):
            pieces.append(reader(row))
            pieces.append(literal)
        return finish("".join(pieces))

    return render


def compile_clean(steps: Sequence[CleanStep]) -> TextChange:
    """One function that runs the steps in order."""
    changes = [change for step in steps for change in _changes(step)]
    if not changes:
        return lambda text: text
    if len(changes) == 1:
        return changes[0]

    def run(text: str) -> str:
        for change in changes:
            text = change(text)
        return text

    return run


def _changes(step: CleanStep) -> Iterator[TextChange]:
    if step.strip:
        yield str.strip
    for wanted in step.wanted:
        yield partial(_replaced, wanted, step.with_)
    for unwanted in step.delete:
        yield partial(_replaced, unwanted, "")
    if step.drop_prefix is not None:
        yield partial(_without_prefix, step.drop_prefix)


def _replaced(old: str, new: str, text: str) -> str:
    return text.replace(old, new)


def _without_prefix(prefix: str, text: str) -> str:
    return text.removeprefix(prefix)


def _field_reader(path: str, steps: Sequence[CleanStep]) -> TextOf:
    clean = compile_clean(steps)
    if "." in path:
        return lambda row: clean(text_of(lookup(row, path), path))

    def read(row: Row) -> str:
        try:
            value = row[path]
        except KeyError:
            raise missing(row, path) from None
        return value if isinstance(value, str) else text_of(value, path)

    return (lambda row: clean(read(row))) if steps else read


def missing(row: Any, path: str) -> BadRow:
    """The error for a row that lacks a field."""
    columns = ", ".join(sorted(map(str, row))) if isinstance(row, Mapping) else type(row).__name__
    return BadRow(f'has no field "{path}"', f"the row has: {columns}; use source.rename for renamed columns")


def _member(value: Any, key: str, path: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        if key not in value:
            raise missing(value, path)
        return value[key]
    if isinstance(value, (list, tuple)):
        return [_member(item, key, path, depth) for item in value]
    if value is None:
        raise stopped(f'field "{path}" is null')
    raise missing(value, path)
