"""The exact text that the model sees, with segment boundaries: for `plan.show`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metashot.data.task import TaskData
from metashot.icl.cell import Cell, PromptRules, shows_no_label
from metashot.icl.prompt import Encode, Ids, Objective, example_pieces


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
    request = cell.requests[cell.index[0][example][option]]
    names = ("input", "output") if rules.method.objective is Objective.DIRECT else ("label", "input")
    pieces: list[tuple[str, Ids]] = []
    demonstrations = data.neighbours[example] if data.neighbours else data.demonstrations
    for number, demonstration in enumerate(demonstrations, start=1):
        ids = example_pieces(
            demonstration,
            encode,
            objective=rules.method.objective,
            layout=rules.layout,
            first=number == 1,
            limits=rules.limits,
            no_label=shows_no_label(demonstrations),
        )
        pieces += [(f"demonstration {number} {name}", piece) for name, piece in zip(names, ids, strict=True)]
    head = cell.head_tokens[0][example][option]
    kept = max(0, len(request.context) - head)
    segments = [*_last_tokens(pieces, kept), (f"query {names[0]}", request.context[kept:])]
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
