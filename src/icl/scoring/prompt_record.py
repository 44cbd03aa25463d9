"""What a cell shows the model, as text: for the `prompts.jsonl` of a run."""

from __future__ import annotations

from metashot.data.task import TaskData
from metashot.engine.cells.prompts import CellPrompt
from metashot.icl.prompting.pieces import shows_no_label
from metashot.icl.prompting.prompt import Objective
from metashot.icl.scoring.cell import PromptRules


def cell_prompt(data: TaskData, rules: PromptRules) -> CellPrompt:
    """The demonstrations with their separators, before any cut, and the test inputs."""
    inputs = tuple(example.input for example in data.test)
    return CellPrompt(data.task, data.seed, None if data.neighbours else _shown(data, rules), inputs)


def _shown(data: TaskData, rules: PromptRules) -> str:
    frame = rules.for_task(data).prompt.frame
    no_label = shows_no_label(data.demonstrations)
    parts = [frame.opening]
    for number, example in enumerate(data.demonstrations):
        pair = (
            frame.input_text(example.input, first=number == 0, no_label=no_label),
            frame.output_text(example.output, first=number == 0, no_label=no_label),
        )
        parts += pair if frame.objective is Objective.DIRECT else pair[::-1]
    return "".join(parts)
