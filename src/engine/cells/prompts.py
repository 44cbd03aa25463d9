"""`prompts.jsonl`: the text that a run showed the model, so that its predictions can be read without the data.

A line per cell holds the demonstrations before any cut, as one text; a line per task holds the test inputs. After a
learned prompt there are no demonstrations, and the inputs stand in the task's pattern, cut as the model read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metashot.base.files import read_lines, write_atomic

PROMPTS_FILE = "prompts.jsonl"


@dataclass(frozen=True, slots=True)
class CellPrompt:
    """What one (task, seed) showed.

    Attributes:
        task: task name.
        seed: demonstration seed.
        demonstrations: their text with separators, empty where none are shown; None where each test example has its own.
        inputs: the test inputs in order.
    """

    task: str
    seed: int
    demonstrations: str | None
    inputs: tuple[str, ...]


def write_prompts(folder: Path, cells: Iterable[CellPrompt]) -> None:
    """Write the file, whole; the inputs of a task stand once as long as its seeds share them."""
    lines: list[str] = []
    last: dict[str, tuple[str, ...]] = {}
    for cell in cells:
        if last.get(cell.task) != cell.inputs:
            lines.append(_line({"task": cell.task, "inputs": cell.inputs}))
            last[cell.task] = cell.inputs
        lines.append(_line({"task": cell.task, "seed": cell.seed, "demonstrations": cell.demonstrations}))
    write_atomic(folder / PROMPTS_FILE, "".join(lines))


def read_prompts(folder: Path) -> dict[tuple[str, int], CellPrompt]:
    """(task, seed) -> what it showed; empty where there is no such file, and less what is damaged."""
    path = folder / PROMPTS_FILE
    inputs: dict[str, tuple[str, ...]] = {}
    found: dict[tuple[str, int], CellPrompt] = {}
    for row in read_lines(path) if path.is_file() else ():
        task = str(row.get("task"))
        if "inputs" in row:
            inputs[task] = tuple(map(str, row["inputs"]))
        elif "seed" in row:
            seed = int(row["seed"])
            found[task, seed] = CellPrompt(task, seed, row.get("demonstrations"), inputs.get(task, ()))
    return found


def _line(row: object) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
