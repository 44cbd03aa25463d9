"""`prompts.jsonl`: the text that a run showed the model, so that its predictions can be read without the data.

A line per cell holds the demonstrations that every prompt of it held whole, as one text; a line per task holds the
test inputs. After a learned prompt there are no demonstrations, and the inputs stand in the task's pattern, cut as the model read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metashot.base.files import append_lines, read_lines

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


class PromptsFile:
    """`prompts.jsonl` of a run, begun anew; a line is appended for each cell when it is finished.

    Args:
        folder: the run's output folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROMPTS_FILE
        self._last: dict[str, tuple[str, ...]] = {}
        self._path.unlink(missing_ok=True)

    def add(self, cells: Sequence[CellPrompt]) -> None:
        """Append cells; the inputs of a task stand once as long as its seeds share them."""
        rows: list[dict[str, Any]] = []
        for cell in cells:
            if self._last.get(cell.task) != cell.inputs:
                rows.append({"task": cell.task, "inputs": cell.inputs})
                self._last[cell.task] = cell.inputs
            rows.append({"task": cell.task, "seed": cell.seed, "demonstrations": cell.demonstrations})
        if rows:
            append_lines(self._path, rows)


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
