"""The text that the model sees: with segment boundaries for `plan.show`, as a whole for `prompts.jsonl`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from metashot.data.task import TaskData
from metashot.engine.cells.prompts import CellPrompt
from metashot.icl.prompting.pieces import PieceWriter, shows_no_label
from metashot.icl.prompting.prompt import Encode, Ids, Objective
from metashot.icl.scoring.cell import Cell, PromptRules


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt.

    Attributes:
        label: what it is (`demonstration 3 input`, `query label`, `target`).
        text: decoded from the ids that are scored, so a cut shows.
        tokens: how many ids.
    """

    label: str
    text: str
    tokens: int


def preview(
    data: TaskData,
    cell: Cell,
    encode: Encode,
    decode: Callable[[Ids], str],
    rules: PromptRules,
    example: int,
    option: int,
) -> list[Segment]:
    """The segments of one (test example, option), in order; cut demonstrations are shortened or left out."""
    rules = rules.for_task(data)
    request = cell.requests[cell.index[0][example][option]]
    names = ("input", "output") if rules.prompt.frame.objective is Objective.DIRECT else ("label", "input")
    every = data.neighbours[example] if data.neighbours else data.demonstrations
    dropped = len(every) - cell.shown[0][example][option]
    writer = PieceWriter(rules.prompt, encode, rules.limits)
    prompt = writer.row(every[dropped:], data.test[example])[option]
    labels = [
        f"demonstration {dropped + 1 + place // 2} {names[place % 2]}" for place in range(len(prompt.shown))
    ]
    pieces = list(zip(labels, prompt.shown, strict=True))
    bos, start = len(rules.prompt.bos), len(prompt.front)
    kept = max(0, len(request.context) - start - len(prompt.head))
    opening = [("begin of sequence", request.context[:bos]), ("opening", request.context[bos:start])]
    segments = [*opening, *_last_tokens(pieces, kept), (f"query {names[0]}", request.context[start + kept :])]
    segments.append((f"target ({names[1]})", request.target))
    return [Segment(label, decode(ids), len(ids)) for label, ids in segments if ids]


def _last_tokens(pieces: list[tuple[str, Ids]], kept: int) -> list[tuple[str, Ids]]:
    """The pieces less the tokens that the left cut removed."""
    dropped = sum(len(ids) for _, ids in pieces) - kept
    shortened: list[tuple[str, Ids]] = []
    for label, ids in pieces:
        lost = min(dropped, len(ids))
        dropped -= lost
        shortened.append((label if not lost else f"{label} (cut)", ids[lost:]))
    return shortened


def cell_prompt(data: TaskData, rules: PromptRules, held: int | None = None) -> CellPrompt:
    """What a cell shows, as text.

    Args:
        data: the cell.
        rules: how it is written.
        held: how many of the last demonstrations every prompt holds whole; None for all.
    """
    inputs = tuple(example.input for example in data.test)
    return CellPrompt(data.task, data.seed, None if data.neighbours else _shown(data, rules, held), inputs)


def _shown(data: TaskData, rules: PromptRules, held: int | None) -> str:
    """The demonstrations with their separators; where a cut takes tokens, the texts are those of all of them."""
    frame = rules.for_task(data).prompt.frame
    dropped = 0 if held is None else len(data.demonstrations) - held
    if frame.keeps_whole and dropped:
        data, dropped = replace(data, demonstrations=data.demonstrations[dropped:]), 0
    no_label = shows_no_label(data.demonstrations)
    parts = [frame.opening]
    for number, example in enumerate(data.demonstrations):
        if number < dropped:
            continue
        pair = (
            frame.input_text(example.input, first=number == 0, no_label=no_label),
            frame.output_text(example.output, first=number == 0, no_label=no_label),
        )
        parts += pair if frame.objective is Objective.DIRECT else pair[::-1]
    return "".join(parts)
