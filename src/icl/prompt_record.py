"""What a cell shows the model, as text: for the `prompts.jsonl` of a run."""

from __future__ import annotations

from metashot.data.task import TaskData
from metashot.engine.runs.prompts import CellPrompt
from metashot.icl.cell import PromptRules, shows_no_label
from metashot.icl.prompt import Objective, input_text, output_text


def cell_prompt(data: TaskData, rules: PromptRules) -> CellPrompt:
    """The demonstrations with their separators, before any cut, and the test inputs."""
    inputs = tuple(example.input for example in data.test)
    return CellPrompt(data.task, data.seed, None if data.neighbours else _shown(data, rules), inputs)


def _shown(data: TaskData, rules: PromptRules) -> str:
    objective, no_label = rules.method.objective, shows_no_label(data.demonstrations)
    parts: list[str] = []
    for number, example in enumerate(data.demonstrations):
        pair = [
            make(text, objective=objective, layout=rules.layout, first=number == 0, no_label=no_label)
            for make, text in ((input_text, example.input), (output_text, example.output))
        ]
        parts += pair if objective is Objective.DIRECT else reversed(pair)
    return "".join(parts)
