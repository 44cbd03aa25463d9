"""MetaICL's files: `<root>/<task>/<task>_<k>_<seed>_<split>.jsonl`, one record a line."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metashot.data.errors import DataError
from metashot.data.task import Example, TaskType

_FIELDS = ("input", "output", "options")


def file_name(task: str, k: int, seed: int, split: str) -> str:
    """Name of one split's file."""
    return f"{task}_{k}_{seed}_{split}.jsonl"


def to_line(example: Example) -> str:
    """One record as the released scripts write it: fixed key order, ASCII-escaped."""
    return json.dumps(
        {
            "task": example.task,
            "input": example.input,
            "output": example.output,
            "options": list(example.options),
        }
    )


def read_examples(path: Path, task: str | None = None) -> list[Example]:
    """All records of a file.

    Args:
        path: the jsonl file.
        task: used for records without a `task` field; by default the folder's name.

    Raises:
        DataError: missing or empty file, bytes that are not UTF-8, malformed JSON, or a record that breaks a rule;
            names file and line.
    """
    task = task or path.parent.name
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            str(path), "no such file", "check data.root, the task's name, k and the seeds"
        ) from None
    examples: list[Example] = []
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            examples.append(_parse(line, f"{path}:{number}", task))
    if not examples:
        raise DataError(str(path), "holds no record", "prepare the task again or remove it from data.tasks")
    return examples


def _parse(line: bytes, where: str, task: str) -> Example:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            where, f"byte {line[error.start]:#04x} is not UTF-8", "save the file in UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            where, f"malformed JSON: {error.msg} at column {error.colno}", "write one JSON object a line"
        ) from None
    if not isinstance(record, dict):
        raise DataError(
            where,
            f"a record must be an object, got {type(record).__name__}",
            "write {input, output, options}",
        )
    return _to_example(record, where, task)


def _to_example(record: dict[str, Any], where: str, task: str) -> Example:
    missing = [field for field in _FIELDS if field not in record]
    if missing:
        raise DataError(
            where, f"record without {', '.join(missing)}", f"every record needs {', '.join(_FIELDS)}"
        )
    output = record["output"]
    if not isinstance(record["input"], str) or not isinstance(output, str):
        raise DataError(where, "input and output must be strings", "quote numbers and flatten lists")
    options = record["options"]
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError(
            where, f"options must be a list of strings, got {options!r}", "write [] for free-form tasks"
        )
    repeated = [option for option, count in Counter(options).items() if count > 1]
    if repeated:
        raise DataError(where, f"option {repeated[0]!r} stands twice in options", "list every option once")
    return Example(str(record.get("task", task)), record["input"], output, tuple(options))


def check_gold(examples: Iterable[Example], path: Path) -> None:
    """Every output must be one of its options.

    Raises:
        DataError: the first record that breaks the rule, with its number in the file.
    """
    for number, example in enumerate(examples, start=1):
        if example.options and example.output not in example.options:
            raise DataError(
                f"{path}:{number}",
                f"output {example.output!r} is not among its options {list(example.options)!r}",
                "correct the output or the options",
            )


def check_labels(examples: Iterable[Example], path: Path, task_type: TaskType | None) -> TaskType:
    """Decide the task's type, and hold a classification task to one label set.

    Without a declared type, one option set for all records means classification, and an option set of their own for
    most records means multi-choice; a few records that differ from a common set are taken for a mistake.

    Raises:
        DataError: the label set differs between records of a classification task.
    """
    rows = list(examples)
    if task_type is not None and task_type is not TaskType.CLASSIFICATION:
        return task_type
    sets = Counter(frozenset(example.options) for example in rows)
    common, count = sets.most_common(1)[0]
    if task_type is None and not common:
        return TaskType.FREE_FORM
    if len(sets) == 1:
        return TaskType.CLASSIFICATION
    if task_type is None and count * 2 <= len(rows):
        return TaskType.MULTI_CHOICE
    number, example = next((n, e) for n, e in enumerate(rows, start=1) if frozenset(e.options) != common)
    raise DataError(
        f"{path}:{number}",
        f"labels {list(example.options)!r} differ from the task's labels {sorted(common)!r}",
        "give every record of a classification task the same options, or set data.task_types.<task>=multi-choice",
    )


def available_k(folder: Path, seed: int, split: str) -> list[int]:
    """The k of the files that a task folder holds for one seed and split, ascending."""
    pattern = re.compile(rf"{re.escape(folder.name)}_(\d+)_{seed}_{split}\.jsonl")
    found = (pattern.fullmatch(path.name) for path in folder.glob("*.jsonl"))
    return sorted(int(match[1]) for match in found if match)
