"""Reading source rows: field paths, texts, templates, and the two ways in which a row can fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from metashot.base.errors import suggestion
from metashot.data.recipes.keys import CleanStep
from metashot.data.sources.layout import column_of

Row = Mapping[str, Any]
"""One raw row of a source: column to value."""
TextOf = Callable[[Row], str]
TextChange = Callable[[str], str]

_SLOT = re.compile(r"\{([^{}]+)\}")


class Pair(NamedTuple):
    """Raw input and output of an example, before the last step that all tasks share."""

    input: str
    output: str


class AnsweredPair(NamedTuple):
    """A pair with further answers that count as right where the answer is generated."""

    input: str
    output: str
    references: tuple[str, ...]


class ChoicePair(NamedTuple):
    """A pair whose options come out of the row, one by one."""

    input: str
    output: str
    options: tuple[str, ...]


AnyPair = Pair | ChoicePair | AnsweredPair


class Dropped(Exception):
    """A row that becomes no example.

    Args:
        reason: what is the matter with it; counted in the manifest.
        published: True if the published data leaves it out as well, False if the original stopped on it.
        rules: numbers of the drop rules that it matches.
    """

    def __init__(self, reason: str, *, published: bool, rules: Sequence[int] = ()) -> None:
        self.reason = reason
        self.published = published
        self.rules = rules
        super().__init__(reason)


class BadRow(Exception):
    """A row that does not fit its recipe: the user's source or recipe is wrong.

    Args:
        problem: what is wrong with it.
        remedy: what to do about it.
        member: which of the rows of a group it is.
    """

    def __init__(self, problem: str, remedy: str, member: int = 0) -> None:
        self.problem = problem
        self.remedy = remedy
        self.member = member
        super().__init__(problem)


def left_out(reason: str) -> Dropped:
    """A row that the published data leaves out."""
    return Dropped(reason, published=True)


def stopped(reason: str) -> Dropped:
    """A row on which the original program stopped."""
    return Dropped(reason, published=False)


def lookup(row: Row, path: str) -> Any:
    """The value at a dotted path; a list on the way gives the list of its members' values.

    `choices.text` reads a struct of lists, `output.answer` a list of structs, and a column that is called
    `choices.text` goes before both.

    Raises:
        BadRow: the row has no such field.
    """
    return row[path] if path in row else _reach(row, path, path)


def held(row: Row, path: str, default: Any = None) -> Any:
    """`lookup`, with `default` where there is no such field."""
    try:
        return lookup(row, path)
    except (BadRow, Dropped):
        return default


def _reach(value: Any, rest: str, path: str) -> Any:
    if isinstance(value, Mapping):
        key = column_of(rest, value)
        if key is None:
            raise missing(value, path)
        inner = value[key]
        return inner if key == rest else _reach(inner, rest[len(key) + 1 :], path)
    if isinstance(value, list | tuple):
        return [_reach(item, rest, path) for item in value]
    if value is None:
        raise stopped(f'field "{path}" is null')
    raise missing(value, path)


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
    if isinstance(value, list | tuple):
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
    return ["" if item is None else text_of(item, path) for item in listed(value, path)]


def listed(value: Any, path: str) -> Sequence[Any]:
    """A list field.

    Raises:
        BadRow: it is none, such as the text of a list.
    """
    if isinstance(value, list | tuple):
        return value
    shown = repr(value) if isinstance(value, str) else str(value)
    raise BadRow(
        f'field "{path}" holds {shown[:60]}, not a list',
        "name a list field; CSV and Excel files hold none, JSON lines and parquet do",
    )


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

    def read(row: Row) -> str:
        value = row[path] if path in row else lookup(row, path)
        return value if value.__class__ is str else text_of(value, path)

    return (lambda row: clean(read(row))) if steps else read


def missing(row: Any, path: str) -> BadRow:
    """The error for a row that lacks a field."""
    if not isinstance(row, Mapping):
        return BadRow(f'has no field "{path}"', f"on the way to it stands a {type(row).__name__}")
    columns = [str(name) for name in row]
    near = suggestion(path, columns)
    return BadRow(
        f'has no field "{path}"',
        f"{near if near.startswith('did') else 'the row has: ' + ', '.join(sorted(columns))}; "
        "use source.rename for renamed columns",
    )
