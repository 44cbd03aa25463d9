"""Own strings around inputs and outputs: `prompt=template`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from metashot.base.errors import ConfigError
from metashot.icl.prompting.frame import TextFrame, word_pairs
from metashot.icl.prompting.prompt import Objective

_PLACES = ("{input}", "{output}")


def template_frame(
    objective: Objective,
    *,
    example: str,
    channel_example: str | None = None,
    separator: str = "\n\n",
    instruction: str = "",
    labels: Mapping[str, str] | None = None,
) -> TextFrame:
    """The frame of a template.

    Blanks in front of the target belong to the target's piece ("Sentiment:" and " positive"), since most tokenizers
    keep a word and the blank before it in one token.

    Args:
        objective: channel turns the template around.
        example: a demonstration, for example ``Review: {input}``, a new line, and ``Sentiment: {output}``.
        channel_example: the template of the channel objective, or None to make one from `example`.
        separator: between examples, and behind the instruction.
        instruction: in front of everything.
        labels: what is shown for an output.

    Raises:
        ConfigError: a template without both places, with one twice, or in the wrong order.
    """
    direct = _parts(example, "prompt.example", _PLACES)
    if objective is Objective.DIRECT:
        before, middle, behind = direct
    elif channel_example is not None:
        before, middle, behind = _parts(channel_example, "prompt.channel_example", _PLACES[::-1])
    else:
        before, middle, behind = _swapped(*direct)
    stem = middle.rstrip()
    lead, gap = middle[len(stem) :], behind + separator + before
    return TextFrame(
        objective=objective,
        opening=instruction + separator if instruction else "",
        before=before,
        gap=gap,
        middle=stem,
        lead=lead,
        query_before=before,
        query_gap=gap,
        query_middle=stem,
        query_lead=lead,
        words=word_pairs(labels or {}),
    )


def _parts(template: str, where: str, order: tuple[str, ...]) -> tuple[str, str, str]:
    """What stands before, between and behind the two places."""
    found = re.findall(r"\{input\}|\{output\}", template)
    if found != list(order):
        raise ConfigError(
            where,
            f"{template!r} must hold {order[0]} once and {order[1]} once, in this order",
            f"for example '{order[0]}\\n{order[1]}'",
        )
    before, middle, behind = re.split(r"\{input\}|\{output\}", template)
    return before, middle, behind


def _swapped(before: str, middle: str, behind: str) -> tuple[str, str, str]:
    """``A{input}B`` and ``C{output}D`` on lines of their own change places; a template of one line cannot tell."""
    head, newline, tail = middle.partition("\n")
    blank = tail[: len(tail) - len(tail.lstrip("\n"))]
    if not newline:
        raise ConfigError(
            "prompt.channel_example",
            "is not set, and input and output stand on one line of prompt.example",
            "give the template of the channel objective, with {output} before {input}",
        )
    return tail[len(blank) :], behind + newline + blank + before, head
