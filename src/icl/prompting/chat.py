"""The tokenizer's chat template as fixed strings around the turns: `prompt=chat`.

The strings are those of the template's rendering of *finished* conversations, the answer included, since that is what
is scored; the prompt is what stands in front of the answer. What the template opens for a model that is to generate
(an open `<think>`) may differ, and is then said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, cast

from metashot.base.errors import ConfigError, DataError
from metashot.engine.models.chat_template import Conversation, render_chats
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.frame import TextFrame, word_pairs
from metashot.icl.prompting.prompt import Objective

_MARK = re.compile("\ue000[0-9]+\ue001")
"""Stands for a turn's text in the sample conversation; from Unicode's private area, so no template holds it."""
_BOS_MARK = "\ue002"
_DATE = datetime(2024, 7, 26)
"""What templates that write today's date are told, so that a prompt is the same tomorrow (Llama 3.1's own default)."""
_OPEN = r"(<think(?:ing)?>|\[THINK\])\s*"
_BLOCK = re.compile(_OPEN + r"(</think(?:ing)?>|\[/THINK\])\s*$")
_OPENED = re.compile(_OPEN + "$")
_SWITCHES = {"enable_thinking": False, "thinking": False}
"""Variables by which published templates are told not to think."""


class Thinking(StrEnum):
    """What stands between the assistant's header and an answer, where a template knows of thinking."""

    AS_TEMPLATE = "as_template"
    """What the template writes in a finished conversation: Qwen 3 an empty block, DeepSeek R1 nothing."""
    EMPTY = "empty"
    """A block without a thought."""
    OFF = "off"
    """Nothing."""


class DemonstrationsAs(StrEnum):
    """Where demonstrations stand in a chat."""

    TURNS = "turns"
    """Each is a turn of the user and one of the assistant."""
    ONE_TURN = "one_turn"
    """All of them and the query's input are one turn of the user."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat template read.

    Attributes:
        frame: its texts, without begin-of-sequence.
        begins: whether it writes begin-of-sequence.
        as_written: whether a prompt and its answer are the template's rendering of the finished conversation.
        notes: what the user should know of it.
    """

    frame: TextFrame
    begins: bool
    as_written: bool
    notes: tuple[str, ...]


class Rendering(NamedTuple):
    """A conversation to render.

    Attributes:
        turns: texts of the user's and the assistant's turns by turns.
        generate: whether the assistant's header is written behind them.
        variables: more for the template.
    """

    turns: Sequence[str]
    generate: bool = False
    variables: Mapping[str, Any] = {}


class Sample(NamedTuple):
    """A sample conversation of so many turns; see `Rendering`."""

    turns: int
    generate: bool = False
    variables: Mapping[str, Any] = {}


class ChatTemplate:
    """A tokenizer's chat template under fixed variables.

    Args:
        tokenizer: holds the template.
        model_name: for errors.
        system: text of a system turn, or None.
        options: variables for the template.
    """

    def __init__(
        self, tokenizer: AnyTokenizer, model_name: str, system: str | None, options: Mapping[str, Any]
    ) -> None:
        self._tokenizer = tokenizer
        self.model_name = model_name
        self._system = system
        self._options: dict[str, Any] = {"date_string": _DATE.strftime("%d %b %Y"), **options}
        self._rendered_text = lru_cache(maxsize=None)(self._render_text)

    def render(self, *conversations: Rendering) -> list[str]:
        """Conversations that the user begins, as texts.

        Raises:
            ConfigError: no template, or one that refuses a conversation.
        """
        if self._tokenizer.chat_template is None:
            raise ConfigError(
                "prompt",
                f"model {self.model_name!r} has no chat template",
                "use prompt=metaicl or prompt=template, or an instruction-tuned model",
            )
        try:
            return render_chats(self._tokenizer, [self._conversation(one) for one in conversations])
        except ValueError as error:
            raise ConfigError(
                "prompt.system" if self._system is not None else "prompt",
                f"the chat template of {self.model_name!r} refuses the conversation: {error}",
                "leave prompt.system=null" if self._system is not None else "use prompt=template",
            ) from error

    def around(self, *samples: Sample) -> list[list[str]]:
        """[turns + 1] texts around the turns of each sample conversation."""
        marks = [tuple(map(_mark, range(one.turns))) for one in samples]
        rendered = self.render(
            *(
                Rendering(turns, one.generate, one.variables)
                for turns, one in zip(marks, samples, strict=True)
            )
        )
        if any(_MARK.findall(text) != list(turns) for text, turns in zip(rendered, marks, strict=True)):
            raise ConfigError(
                "prompt",
                f"the chat template of {self.model_name!r} leaves out turns or changes their order",
                "use prompt=template",
            )
        return [_MARK.split(text) for text in rendered]

    def _conversation(self, one: Rendering) -> Conversation:
        roles = [{"role": "system", "content": self._system}] if self._system is not None else []
        said = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(one.turns)]
        options = {**self._options, **one.variables, **self._dated, "add_generation_prompt": one.generate}
        return [*roles, *said], options

    def text(self, text: str, assistant: bool, query: bool) -> str:
        """What the template makes of a turn's text, in a demonstration or in the query; blanks around it are taken off.

        Templates look into texts for words of their own (Qwen 3 takes a thought out of an answer); a text without
        any such word stays as it is.

        Raises:
            DataError: the template writes the conversation in another way because of this text.
        """
        text = text.strip()
        if any(word in text for word in self._own_words):
            return self._rendered_text(text, assistant, query)
        return text

    def _render_text(self, text: str, assistant: bool, query: bool) -> str:
        place = 2 * query + assistant
        (around,) = self.around(Sample(4))
        turns = [_mark(turn) for turn in range(4)]
        front = "".join(word for pair in zip(around, turns[:place], strict=False) for word in pair)
        front += around[place]
        behind = around[place + 1]
        behind += "".join(
            w for pair in zip(turns[place + 1 :], around[place + 2 :], strict=True) for w in pair
        )
        turns[place] = text
        (rendered,) = self.render(Rendering(turns))
        held = rendered[len(front) : len(rendered) - len(behind)]
        if front + held + behind != rendered:
            raise DataError(
                "prompt",
                f"the chat template of {self.model_name!r} writes a conversation in another way that holds "
                f"{text if len(text) <= 80 else text[:80] + '...'!r}",
                "take the row out, or use prompt=template",
            )
        return held

    @cached_property
    def _source(self) -> str:
        source: Any = self._tokenizer.chat_template
        return str(cast(dict[str, Any], source).get("default", "") if isinstance(source, dict) else source)

    @cached_property
    def _dated(self) -> dict[str, str]:
        """The template with a clock that stands still, where it asks for the time: transformers passes no function on."""
        if "strftime_now" not in self._source:
            return {}
        written = "".join(f" | replace('%{one}', '{_DATE.strftime(f'%{one}')}')" for one in "aAbBdejHIMmpSyY")
        clock = f"{{%- macro strftime_now(form) %}}{{{{- form{written} }}}}{{%- endmacro %}}"
        return {"chat_template": clock + self._source}

    @cached_property
    def _own_words(self) -> frozenset[str]:
        """The words in quotes of the template's source, other than names of fields and roles."""
        quoted = [found[1] for found in re.findall(r"(['\"])(.*?)\1", self._source, re.DOTALL)]
        words = (word.strip() for one in quoted for word in re.split(r"\\.", one))
        return frozenset(word for word in words if len(word) > 1 and not word.isidentifier())


def read_chat(
    template: ChatTemplate,
    objective: Objective,
    bos: str,
    *,
    labels: Mapping[str, str] | None = None,
    thinking: Thinking = Thinking.AS_TEMPLATE,
) -> Chat:
    """The frame of a chat template: direct lets the user say inputs, channel lets the user say outputs.

    Sample conversations with marks as texts are rendered, and what stands between the marks is kept. They must agree
    with each other: then demonstrations can be added and dropped without rendering again.

    Args:
        template: the template.
        objective: which side the user says.
        bos: begin-of-sequence as text; empty where there is none.
        labels: what is shown for an output.
        thinking: what stands in front of an answer.

    Raises:
        ConfigError: no chat template, one that refuses the conversation, one whose turns depend on how many follow, or
            an empty thought where the template knows of none.
    """
    # In front of the answer stands what the template writes for one who is to answer; what it writes between the
    # input and the answer, and behind it, only a finished conversation shows.
    shots = range(4)
    rendered = template.around(
        *(Sample(2 * shown + 1, generate=True) for shown in shots),
        *(Sample(2 * shown + 2) for shown in shots),
        Sample(1, True, _SWITCHES),
        Sample(4, variables={"bos_token": _BOS_MARK}),
    )
    asked, finished, (silent, marked) = rendered[:4], rendered[4:8], rendered[8:]
    alone, opened = asked[0]
    opening, middle, query_gap, _ = asked[1]
    gap = asked[2][2]
    query_middle, tail = finished[0][1:]
    regular = [[alone], *([opening, *[middle, gap] * (n - 1), middle, query_gap] for n in (1, 2, 3))]
    if asked != [[*front, opened] for front in regular] or any(
        one[-2:] != [query_middle, tail] for one in finished
    ):
        raise ConfigError(
            "prompt",
            f"the chat template of {template.model_name!r} writes a turn in different ways, by how many follow",
            "leave prompt.system=null, or write the turns out with prompt=template",
        )
    query_middle, note = _thinking(template.model_name, query_middle, opened, silent[1], thinking)
    notes = [note] if note else []
    whole = all(one[:-2] == front for one, front in zip(finished, regular, strict=True))
    if not whole:
        notes.append(
            f"the chat template of {template.model_name!r} writes the turns before an answer in another way once it is "
            "given (a system text that stands in the last turn); prompts hold what it writes before"
        )
    if thinking == Thinking.OFF:
        middle = _BLOCK.sub("", middle)
    begins = (
        bool(bos)
        and opening.startswith(bos)
        # A token that opens every turn (SmolLM2's <|im_start|>) is the template's own, whatever else it is called.
        and (bos not in gap or marked[0].startswith(_BOS_MARK))
    )
    if begins:
        opening, alone = opening.removeprefix(bos), alone.removeprefix(bos)
    # What one conversation begins with and the other does not (a system text in its last turn) is the example's; so
    # are blanks in front of an example, which a tokenizer keeps in one token with its first word.
    shared = _shared_front(opening, alone).rstrip(" ")
    frame = TextFrame(
        objective=objective,
        opening=shared,
        before=opening[len(shared) :],
        gap=gap,
        middle=middle.rstrip(" "),
        lead=middle[len(middle.rstrip(" ")) :],
        query_before=alone[len(shared) :],
        query_gap=query_gap,
        query_middle=query_middle.rstrip(" "),
        query_lead=query_middle[len(query_middle.rstrip(" ")) :],
        tail=tail,
        words=word_pairs(labels or {}),
        turns=True,
    )
    return Chat(frame, begins, whole and thinking == Thinking.AS_TEMPLATE, tuple(notes))


def in_one_turn(chat: TextFrame, inner: TextFrame) -> TextFrame:
    """A chat whose one user turn holds the demonstrations and the query's input, written as `inner` says."""
    return replace(
        inner,
        opening=chat.opening + chat.query_before + inner.opening,
        query_middle=inner.query_middle + chat.query_middle,
        query_lead=chat.query_lead,
        tail=chat.tail,
        turns=True,
    )


def _thinking(
    model_name: str, finished: str, opened: str, silent: str, thinking: Thinking
) -> tuple[str, str | None]:
    """What stands in front of an answer, and what to tell the user of it.

    Args:
        model_name: for the note.
        finished: what stands there in a finished conversation.
        opened: what the template writes for a model that is to generate.
        silent: the same for one that is told not to think.
        thinking: what is wanted.
    """
    bare = _BLOCK.sub("", finished)
    if thinking == Thinking.EMPTY:
        chosen = finished if bare != finished else bare + _empty_block(model_name, opened, silent)
    else:
        chosen = bare if thinking == Thinking.OFF else finished
    if not _BLOCK.search(finished) and not _OPENED.search(opened) and chosen == finished:
        return chosen, None
    shows = repr(chosen[len(bare) :]) if chosen != bare else "nothing"
    note = (
        f"prompt.thinking={thinking}: {shows} stands between the assistant's header and every answer; the chat "
        f"template of {model_name!r} writes {opened[-24:]!r} where a model is to generate"
    )
    return chosen, note


def _empty_block(model_name: str, opened: str, silent: str) -> str:
    """A block that holds no thought, as the template closes it or as it opens one."""
    if _BLOCK.search(silent):
        return silent[len(_BLOCK.sub("", silent)) :]
    found = _OPENED.search(opened)
    if found is None:
        raise ConfigError(
            "prompt.thinking",
            f"empty, but the chat template of {model_name!r} knows of no thinking",
            "use prompt.thinking=as_template",
        )
    tag = found[1]
    return f"{tag}\n\n{tag[0]}/{tag[1:]}\n\n"


def _shared_front(first: str, second: str) -> str:
    length = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    return first[: min(len(first), len(second)) if length is None else length]


def _mark(turn: int) -> str:
    return f"\ue000{turn}\ue001"
