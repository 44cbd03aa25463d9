"""The tokenizer's chat template as fixed strings around the turns: `prompt=chat`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from metashot.base.errors import ConfigError
from metashot.engine.models.chat_template import render_chat
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.frame import TextFrame, word_pairs
from metashot.icl.prompting.prompt import Objective

_MARK = re.compile("\ue000[0-9]+\ue001")
"""Stands for a turn's text in the sample conversation; from Unicode's private area, so no template holds it."""
_DATE = datetime(2024, 7, 26)
"""What templates that write today's date are told, so that a prompt is the same tomorrow (Llama 3.1's own default)."""
_SAMPLE_TURNS = 2


def chat_frame(
    tokenizer: AnyTokenizer,
    objective: Objective,
    *,
    model_name: str,
    system: str | None = None,
    labels: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[TextFrame, bool]:
    """The frame of a chat template, and whether the template writes begin-of-sequence.

    Sample conversations with marks as texts are rendered, and what stands between the marks is kept. They must agree
    with each other: then demonstrations can be added and dropped without rendering again.

    Args:
        tokenizer: holds the template.
        objective: direct lets the user say inputs; channel lets the user say outputs.
        model_name: for errors.
        system: text of a system turn.
        labels: what is shown for an output.
        options: variables for the template.

    Raises:
        ConfigError: no chat template, one that refuses the conversation, or one whose turns depend on how many follow.
    """
    render = _Renderer(tokenizer, model_name, system, options or {})
    opening, *inner = render(_SAMPLE_TURNS)
    middles, betweens, query_middle = inner[:-1:2], inner[1:-1:2], inner[-1]
    regular = (
        len(set(middles)) == len(set(betweens)) == 1
        and render(0) == [opening, query_middle]
        and render(1) == [opening, middles[0], betweens[0], query_middle]
    )
    if not regular:
        raise ConfigError(
            "prompt",
            f"the chat template of {model_name!r} writes a turn in different ways, by what follows",
            "leave prompt.system=null, or write the turns out with prompt=template",
        )
    bos = str(tokenizer.bos_token or "")
    # A token that opens every turn (SmolLM2's <|im_start|>) is the template's own, whatever else it is called.
    begins = bool(bos) and opening.startswith(bos) and bos not in betweens[0]
    frame = TextFrame(
        objective=objective,
        opening=opening.removeprefix(bos) if begins else opening,
        before="",
        gap=betweens[0],
        middle=middles[0],
        query_middle=query_middle,
        words=word_pairs(labels or {}),
        turns=True,
    )
    return frame, begins


class _Renderer:
    """The texts around the turns of a sample conversation."""

    def __init__(
        self,
        tokenizer: AnyTokenizer,
        model_name: str,
        system: str | None,
        options: Mapping[str, Any],
    ) -> None:
        self._tokenizer = tokenizer
        self._model_name = model_name
        self._system = system
        self._options: dict[str, Any] = {
            "date_string": _DATE.strftime("%d %b %Y"),
            "strftime_now": _DATE.strftime,
            **options,
        }

    def __call__(self, demonstrations: int) -> list[str]:
        """[2 * demonstrations + 2] texts: before the first turn, between the turns, and before the answer."""
        turns = 2 * demonstrations + 1
        roles = [{"role": "system", "content": self._system}] if self._system is not None else []
        marks = [f"\ue000{turn}\ue001" for turn in range(turns)]
        said = [{"role": ("user", "assistant")[turn % 2], "content": mark} for turn, mark in enumerate(marks)]
        rendered = self._render([*roles, *said])
        if _MARK.findall(rendered) != marks:
            raise ConfigError(
                "prompt",
                f"the chat template of {self._model_name!r} leaves out turns or changes their order",
                "use prompt=template",
            )
        return _MARK.split(rendered)

    def _render(self, messages: list[Any]) -> str:
        if self._tokenizer.chat_template is None:
            raise ConfigError(
                "prompt",
                f"model {self._model_name!r} has no chat template",
                "use prompt=metaicl or prompt=template, or an instruction-tuned model",
            )
        try:
            return render_chat(self._tokenizer, messages, add_generation_prompt=True, **self._options)
        except ValueError as error:
            raise ConfigError(
                "prompt.system" if self._system is not None else "prompt",
                f"the chat template of {self._model_name!r} refuses the conversation: {error}",
                "leave prompt.system=null" if self._system is not None else "use prompt=template",
            ) from error
