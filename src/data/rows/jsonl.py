"""MetaICL's files: `<root>/<task>/<task>_<k>_<seed>_<split>.jsonl`, one record a line."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metashot.base.errors import DataError
from metashot.base.json_text import is_whole
from metashot.data.sources.json_files import json_line_rows
from metashot.data.sources.layout import TableLayout
from metashot.data.sources.text_files import COMPRESSIONS, plain_suffix
from metashot.data.task import Example

_FIELDS = ("input", "output", "options")


def file_name(task: str, k: int | str, seed: int | str, split: str) -> str:
    """Name of one split's file."""
    return f"{task}_{k}_{seed}_{split}.jsonl"


def to_line(example: Example) -> str:
    """One record as the released scripts write it: fixed key order, ASCII-escaped; further keys only where they say something."""
    record = {
        "task": example.task,
        "input": example.input,
        "output": example.output,
        "options": list(example.options),
    }
    more = {"references": list(example.references), "rationale": example.rationale}
    return json.dumps(record | {key: value for key, value in more.items() if value})


@dataclass(frozen=True, slots=True)
class RecordFile:
    """The records of a file with the lines on which they stand.

    Attributes:
        path: the file.
        examples: its records, in order.
        lines: line of each, counted from 1 with blank lines.
    """

    path: Path
    examples: tuple[Example, ...]
    lines: tuple[int, ...]

    def where(self, number: int) -> str:
        """`file:line` of a record."""
        return f"{self.path}:{self.lines[number]}"

    def first(self, count: int) -> RecordFile:
        """The same file with its first `count` records."""
        return RecordFile(self.path, self.examples[:count], self.lines[:count])


def read_examples(path: Path, task: str | None = None) -> list[Example]:
    """All records of a file.

    Args:
        path: the jsonl file, compressed or not.
        task: used for records without a `task` field; by default the folder's name.

    Raises:
        DataError: as `read_records`.
    """
    return list(read_records(path, task).examples)


def read_records(path: Path, task: str | None = None) -> RecordFile:
    """All records of a file, with their lines.

    Args:
        path: the jsonl file, compressed or not.
        task: used for records without a `task` field; by default the folder's name.

    Raises:
        DataError: missing or empty file, bytes that are not UTF-8, malformed JSON, or a record that breaks a rule;
            names file and line.
    """
    task = task or path.parent.name
    if not path.is_file():
        raise DataError(str(path), "no such file", "check data.root, the task's name, k and the seeds")
    examples: list[Example] = []
    lines: list[int] = []
    for number, record in json_line_rows(path, TableLayout()):
        examples.append(_to_example(record, f"{path}:{number}", task))
        lines.append(number)
    if not examples:
        raise DataError(str(path), "holds no record", "prepare the task again or remove it from data.tasks")
    return RecordFile(path, tuple(examples), tuple(lines))


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
    references = record.get("references", [])
    if not isinstance(references, list) or not all(isinstance(one, str) for one in references):
        raise DataError(
            where, f"references must be a list of strings, got {references!r}", "list further right answers"
        )
    rationale = record.get("rationale", "")
    if not isinstance(rationale, str):
        raise DataError(
            where, f"rationale must be a string, got {rationale!r}", "write the reasons as one text"
        )
    repeated = [option for option, count in Counter(options).items() if count > 1]
    if repeated:
        raise DataError(where, f"option {repeated[0]!r} stands twice in options", "list every option once")
    for text in (record["input"], output, *options, *references, rationale):
        if not text.isascii() and not is_whole(text):
            raise DataError(
                where,
                f"{text[:40]!r} holds half a character (a lone surrogate)",
                "write the record again from its source, in UTF-8",
            )
    name = str(record.get("task", task))
    return Example(name, record["input"], output, tuple(options), tuple(references), rationale)


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name, or a compressed one; None if the folder has neither."""
    candidates = (folder / f"{name}{ending}" for ending in ("", *COMPRESSIONS))
    return next((path for path in candidates if path.is_file()), None)


def available_k(folder: Path, seed: int, split: str) -> list[int]:
    """The k of the files that a task folder holds for one seed and split, ascending."""
    endings = "|".join(map(re.escape, COMPRESSIONS))
    pattern = re.compile(rf"{re.escape(folder.name)}_(\d+)_{seed}_{split}\.jsonl(?:{endings})?")
    found = (pattern.fullmatch(path.name) for path in folder.iterdir())
    return sorted({int(match[1]) for match in found if match})


def holds_files(folder: Path) -> bool:
    """Whether a folder holds jsonl files, compressed or not."""
    return any(plain_suffix(path) == ".jsonl" for path in folder.iterdir() if path.is_file())
