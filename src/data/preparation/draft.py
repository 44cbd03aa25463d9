"""A first recipe for a table of one's own: columns, types and labels are looked at, the file is written with comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from metashot.base.errors import DataError
from metashot.base.files import write_atomic
from metashot.data.preparation.columns import Column, look_at
from metashot.data.sources.layout import Row, TableLayout
from metashot.data.sources.tables import numbered_rows, row_place

ROWS_LOOKED_AT = 20_000
_MOST_LABELS = 20
_LABEL_NAMES = ("label", "labels", "class", "category", "target", "gold", "output", "answer", "y")
_REMEDY = re.compile(r'set source\.(delimiter|encoding|field): "?([^\s"]+)"?')
# No file has these columns: a reader then says what it would say to a recipe that finds none of its own.
_PROBE = ("\0one", "\0two")
_SHOTS = 16


@dataclass(frozen=True, slots=True)
class Draft:
    """What was written for a table.

    Attributes:
        task: name of the task.
        recipe: its file.
        setting: file of a setting with this task alone.
        columns: what was found.
        rows: rows looked at.
        k: demonstrations that the training rows allow, 16 at most.
    """

    task: str
    recipe: Path
    setting: Path
    columns: tuple[Column, ...]
    rows: int
    k: int


def draft_recipe(path: Path, force: bool = False) -> Draft:
    """Look at a table and write `<task>.yaml` and `<task>_setting.yaml` beside it.

    Args:
        path: a table of any format of the registry; with `x_train.csv` an `x_test.csv` beside it is the test split.
        force: write over files that are there.

    Raises:
        DataError: the table cannot be read, holds no column that could be asked or answered, or a file is there.
    """
    layout, rows = _readable(path)
    columns = look_at(rows)
    usable = [one for one in columns if one.filled and not re.search(r"[{}\0]", one.name)]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", re.sub(r"[_.-]?train$", "", _stem(path))).strip("_-") or "task"
    recipe, setting = path.with_name(f"{name}.yaml"), path.with_name(f"{name}_setting.yaml")
    for file in (recipe, setting):
        if file.exists() and not force:
            raise DataError(
                str(file), "is there already", "set prepare.force=true to write over it, or move it"
            )
    test = _test_file(path)
    n_train = len(rows) if test is not None else int(0.8 * len(rows))
    text = "\n".join([*_head(name, path, layout, test, columns), *_kind(path, rows, usable)])
    write_atomic(recipe, text + "\n")
    write_atomic(
        setting, f"# The targets of a run: setting=custom setting.name=<this file>\ntest: [{name}]\n"
    )
    return Draft(name, recipe, setting, tuple(columns), len(rows), max(1, min(_SHOTS, n_train // 2)))


def _readable(path: Path) -> tuple[TableLayout, list[Row]]:
    """Rows, and the layout that reads them: what a reader's error says to set is set."""
    layout = TableLayout()
    for _ in range(4):
        try:
            numbered = list(islice(numbered_rows(path, replace(layout, columns=_PROBE)), ROWS_LOOKED_AT))
        except DataError as error:
            said = _REMEDY.match(error.remedy)
            if said is None:
                raise
            layout = replace(layout, **{said[1]: said[2].replace("\\t", "\t")})
            continue
        if not numbered:
            raise DataError(str(path), "holds no row", "give a table with rows")
        return layout, [row for _, row in numbered]
    raise DataError(
        str(path), "cannot be read", "name its separator, encoding and header in a recipe of your own"
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _test_file(path: Path) -> Path | None:
    stem = _stem(path)
    if not stem.endswith("train"):
        return None
    ending = path.name.removeprefix(stem)
    names = (stem.removesuffix("train") + other + ending for other in ("test", "validation", "dev"))
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _head(
    name: str, path: Path, layout: TableLayout, test: Path | None, columns: Sequence[Column]
) -> Iterator[str]:
    yield f"# A first recipe for {path.name}: read it, correct it, then prepare it."
    yield "# What each key means: docs/data.md. What was found in the table:"
    width = max(len(one.name) for one in columns)
    for one in columns:
        yield f"#   {one.name:<{width}}  {_one_line(one.describe())}; e.g. {_one_line(one.example)}"
    yield f"name: {name}"
    yield 'about: ""                      # one line: what is asked'
    yield "ontology: own                  # the ability that is asked for, for reports"
    yield "source:"
    files = {"train": path.name} | ({"test": test.name} if test is not None else {})
    yield f"  files: {{{', '.join(f'{split}: {_quoted(file)}' for split, file in files.items())}}}"
    for key in ("delimiter", "encoding", "field"):
        if getattr(layout, key) is not None:
            yield f"  {key}: {_quoted(getattr(layout, key))}"
    if test is not None:
        yield "splits: {train: train, test: test}"
    else:
        yield "# One file: its rows are shuffled with seed 42, then cut into training and test rows."
        yield "splits: {train: train, test: train, cut: {train: [0.0, 0.8], test: [0.8, 1.0]}}"
    fields = ", ".join(f"{_quoted(one.name)}: {one.kind}" for one in columns)
    yield f"fields: {{{fields}}}   # column: text, number, true or false, list of texts"


def _kind(path: Path, rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    """The keys of the kind that the columns suggest."""
    label = _label(columns, len(rows))
    options = next((one for one in columns if one.kind == "list of texts"), None)
    texts = [one for one in columns if one is not label and one.kind == "text" and not _is_id(one, len(rows))]
    if options is not None and label is not None and label.kind == "number":
        yield from _choices(texts, options, label)
    elif label is not None and texts:
        yield from _labelled(texts, label)
    elif options is not None and texts:
        yield from _answer("first_answer", "answers", texts, options)
    elif len(texts) > 1:
        named = [one for one in texts if one.name.lower().split(".")[-1] in _LABEL_NAMES]
        answer = (named or texts)[-1]
        yield from _answer("text_answer", "answer", [one for one in texts if one is not answer], answer)
    else:
        found = ", ".join(f"{one.name} ({one.kind})" for one in columns) or "nothing"
        raise DataError(
            row_place(path, 1),
            f"no columns that ask and answer; found: {found}",
            "give it a column of answers",
        )


def _label(columns: Sequence[Column], n: int) -> Column | None:
    """The column with the labels: few values that repeat, a telling name first, else the shortest one."""
    few = [
        one
        for one in columns
        if 2 <= len(one.values) <= min(_MOST_LABELS, max(2, n // 2)) and one.kind != "list of texts"
    ]
    named = [one for one in few if one.name.lower().split(".")[-1] in _LABEL_NAMES]
    return min(named or few, key=lambda one: (one.mean, -columns.index(one)), default=None)


def _is_id(column: Column, n: int) -> bool:
    last = column.name.lower().split(".")[-1]
    return last in ("id", "uid", "guid", "index", "idx") or last.endswith("_id")


def _labelled(texts: Sequence[Column], label: Column) -> Iterator[str]:
    words = list(label.values)
    numeric = label.kind == "number"
    keys = [word if label.kind != "text" else _quoted(word) for word in words]
    order = sorted(
        range(len(words)), key=lambda place: float(words[place]) if numeric else words[place].lower()
    )
    yield "task_type: classification      # classification (macro-F1) or multi-choice (accuracy)"
    yield ""
    yield "kind: labelled                 # template in, label word out"
    yield from _input(texts)
    yield f"label: {_quoted(label.name)}"
    yield "labels:                        # value in the table: word that the model must answer"
    for place in order:
        hint = "   # give it a word" if numeric else ""
        yield (
            f"  {keys[place]}: {_quoted(words[place])}   # {label.values[words[place]]} rows".rstrip() + hint
        )
    yield f"options: [{', '.join(_quoted(words[place]) for place in order)}]"


def _choices(texts: Sequence[Column], options: Column, label: Column) -> Iterator[str]:
    base = min(float(word) for word in label.values)
    yield "task_type: multi-choice        # scored by accuracy"
    yield ""
    yield "kind: choices                  # question and choices in, one of the choices out"
    yield from _input(texts)
    yield f"choices: {_quoted(options.name)}"
    key = "index" if base == 0 else "number"
    yield f"gold: {{{key}: {_quoted(label.name)}}}   # index counts from 0, number from 1; or letter, label, text"


def _answer(kind: str, key: str, texts: Sequence[Column], answer: Column) -> Iterator[str]:
    yield "task_type: free-form           # answered freely: method=generate"
    yield ""
    yield f"kind: {kind}"
    yield from _input(texts)
    yield f"{key}: {_quoted(answer.name)}"


def _input(texts: Sequence[Column]) -> Iterator[str]:
    single = len(texts) == 1
    template = f"{{{texts[0].name}}}" if single else "\n".join(f"{one.name}: {{{one.name}}}" for one in texts)
    yield f"input: {_quoted(template)}   # what the model sees"
    blank = [] if single else [one.name for one in texts if one.void]
    if blank:
        yield f"optional: [{', '.join(map(_quoted, blank))}]   # may be blank; a row with another blank field is dropped"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
