"""Inputs that the model writes itself after the demonstrations, for generative calibration (Jiang et al. 2023)."""

from __future__ import annotations

from dataclasses import replace

from metashot.base.errors import ConfigError
from metashot.data.task import TaskData
from metashot.engine.generation.request import GenerationRequest, Generator, Sampling, Stopping
from metashot.icl.prompting.prompt import Encode, Ids
from metashot.icl.scoring.cell import PromptRules
from metashot.icl.scoring.preview import cell_prompt

_MARK = "\N{SNOWMAN}"
"""Stands for a text, to read what a format writes around it."""


def needs_written_inputs(data: TaskData, rules: PromptRules) -> bool:
    """Whether the cell lacks inputs that the model must write.

    Raises:
        ConfigError: each test example has demonstrations of its own, so that no inputs are everyone's.
    """
    if not rules.method.calibration.written or data.unlabelled:
        return False
    if data.neighbours or not data.demonstrations:
        raise ConfigError(
            "method.calibration",
            f"{rules.method.calibration.name!r} has the model write inputs after the demonstrations, and task {data.task!r} "
            + ("shows each test example its own" if data.neighbours else "shows none"),
            "use a selection that all test examples share, with k of 1 or more, or method.calibration=contextual",
        )
    return True


def with_written_inputs(data: TaskData, rules: PromptRules, generator: Generator, encode: Encode) -> TaskData:
    """The cell with `method.calibration_inputs` inputs, sampled from the model at temperature 1 by the cell's seed.

    An input ends where the format would go on with an answer, or when it is as long as the longest demonstration's.
    """
    ids, between = writing_prompt(data, rules, encode)
    longest = max(len(encode(example.input)) for example in data.demonstrations)
    new = max(1, min(longest, rules.limits.per_example))
    room = min(rules.context_length, rules.limits.sequence) - new
    wanted = [
        GenerationRequest(ids[-max(1, room) :], data.seed * rules.method.calibration_inputs + number)
        for number in range(rules.method.calibration_inputs)
    ]
    stopping = Stopping(new, (between,) if between.strip(" ") else ())
    found = generator.generate(wanted, stopping, Sampling(temperature=1.0))
    return replace(data, unlabelled=tuple(one.text.strip() for one in found))


def with_stand_ins(data: TaskData, rules: PromptRules) -> TaskData:
    """The cell with demonstrations' inputs in the place of what the model would write, for counting without weights."""
    texts = [example.input for example in data.demonstrations]
    n = rules.method.calibration_inputs
    return replace(data, unlabelled=tuple((texts * (n // len(texts) + 1))[:n]))


def writing_prompt(data: TaskData, rules: PromptRules, encode: Encode) -> tuple[Ids, str]:
    """What the model writes an input after, and the text that would follow it."""
    prompt, frame = rules.for_task(data).prompt, rules.for_task(data).prompt.frame
    before, _, after = frame.input_text(_MARK, first=False, query=True).partition(_MARK)
    between = after + frame.output_text(_MARK, first=False, query=True).partition(_MARK)[0]
    shown = cell_prompt(data, rules).demonstrations or ""
    return (*prompt.bos, *prompt.encoder(encode)(shown + before)), between
