"""`conf/prompt`: how examples become a prompt, as one component a format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, Literal

from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect
from metashot.base.value_kinds import Name, Positive
from metashot.data.task import Wording
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.begin import BosChoice, begin_ids, bos_ids
from metashot.icl.prompting.bound import BoundPrompt
from metashot.icl.prompting.boundary import Boundary, span_encoder
from metashot.icl.prompting.chat import (
    Chat,
    ChatTemplate,
    DemonstrationsAs,
    Thinking,
    in_one_turn,
    read_chat,
)
from metashot.icl.prompting.control_tokens import ControlTokens
from metashot.icl.prompting.frame import Frame, MetaiclFrame, TextFrame
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Ids, LengthLimits, Objective, Overlong, OverlongShots
from metashot.icl.prompting.rendering import check_rendering
from metashot.icl.prompting.template import template_frame

_ANY_LENGTH = 1 << 30
RELEASED_PROMPT = "metaicl"
"""Name of the released format, which every checkpoint has that names no other."""


@dataclass(frozen=True, slots=True)
class PromptConfig(ABC):
    """How examples become a prompt; the formats are its subclasses."""

    name: Annotated[Name, NoEffect("what messages and checkpoints call it")]
    """The format's name."""
    _: KW_ONLY
    bos: Annotated[BosChoice, NoEffect("the ids that it stands for are in the bound prompt")] = "auto"
    """`auto` (what the tokenizer itself prepends), True or False: begin-of-sequence in front of every prompt.
    """
    boundary: Boundary = Boundary.JOINT
    """The prompt tokenized as one text, or its pieces one by one (MetaICL)."""
    max_length: Positive | Literal["model"] = 1024
    """Most tokens of a sequence with demonstrations; `model`: as many as the model has positions (not in training)."""
    max_length_per_example: Positive = 256
    """Most tokens of one example, two of them reserved as in the released code."""
    overlong: Overlong = Overlong.CUT_END
    """What happens to a test input that exceeds it: `cut_end` (released code), `cut_start` or `refuse`."""
    overlong_shots: OverlongShots = OverlongShots.DROP
    """What happens to demonstrations that do not fit: `drop` (the first ones) or `refuse`."""

    @property
    def limits(self) -> LengthLimits:
        """The token limits."""
        # What a model has is a limit of its own wherever prompts are fitted.
        most = _ANY_LENGTH if self.max_length == "model" else self.max_length
        return LengthLimits(self.max_length_per_example, most, self.overlong, self.overlong_shots)

    @abstractmethod
    def frame(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> Frame:
        """The texts for one method and model.

        Raises:
            ConfigError: a format that this method or tokenizer cannot have.
        """

    @abstractmethod
    def trained_as(self) -> Any:
        """What a meta-trained checkpoint's manifest says of the format."""

    def bos_of(self, tokenizer: AnyTokenizer) -> Ids:
        """The ids in front of every prompt."""
        return bos_ids(tokenizer, self.bos)

    def bind(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> BoundPrompt:
        """The format ready for use.

        Raises:
            ConfigError: see `frame`, `bos_ids` and `span_encoder`.
        """
        return self._bound(self.frame(method, model_name, tokenizer), self.bos_of(tokenizer), tokenizer)

    def _bound(self, frame: Frame, bos: Ids, tokenizer: AnyTokenizer) -> BoundPrompt:
        spans = span_encoder(tokenizer) if self.boundary == Boundary.JOINT else None
        first = frame.input_text if frame.objective is Objective.DIRECT else frame.output_text
        start: Any = tokenizer(frame.opening + first("", first=True), add_special_tokens=False)
        if tuple(start["input_ids"][: len(bos)]) == bos:
            bos = ()  # The format's own text begins with it.
        return BoundPrompt(frame, bos, spans, begin_ids(tokenizer), control=ControlTokens(tokenizer))


@dataclass(frozen=True, slots=True)
class MetaiclPrompt(PromptConfig):
    """The released layouts: separators only; `method.layout` says which."""

    name: Name = RELEASED_PROMPT
    _: KW_ONLY
    boundary: Boundary = Boundary.SEPARATE

    def frame(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> Frame:
        """Newlines or spaces, by the method and the model's name."""
        del tokenizer
        return MetaiclFrame(method.objective, method.layout_for(model_name))

    def trained_as(self) -> Any:
        """The name; the layout is the method's."""
        return RELEASED_PROMPT


@dataclass(frozen=True, slots=True)
class TemplatePrompt(PromptConfig):
    r"""Own strings around inputs and outputs; ``\n`` written out is a new line, which a command line cannot hold."""

    name: Name = "template"
    _: KW_ONLY
    example: str = "{input}\n{output}"
    """An example with `{input}` and `{output}`, in the order of the direct objective."""
    channel_example: str | None = None
    """The same for the channel objective, `{output}` first; None swaps the lines of `example`."""
    separator: str = "\n\n"
    """Between examples, and behind the instruction."""
    instruction: str = ""
    """In front of everything; no cut removes it."""
    labels: Mapping[str, str] | None = None
    """What is shown for an output: `{positive: great}`; outputs without an entry stay."""

    def frame(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> Frame:
        """The strings, turned for the objective."""
        del model_name, tokenizer
        return self.text_frame(method)

    def text_frame(self, method: Method) -> TextFrame:
        """The same; no model decides it.

        Raises:
            ConfigError: see `template_frame`.
        """
        _refuse_layout(method, self.name)
        return template_frame(
            method.objective,
            example=with_new_lines(self.example),
            channel_example=None if self.channel_example is None else with_new_lines(self.channel_example),
            separator=with_new_lines(self.separator),
            instruction=with_new_lines(self.instruction),
            labels=self.labels,
        )

    def trained_as(self) -> Any:
        """All strings."""
        return {
            "name": "template",
            "example": self.example,
            "channel_example": self.channel_example,
            "separator": self.separator,
            "instruction": self.instruction,
            "labels": dict(self.labels or {}),
        }


@dataclass(frozen=True, slots=True)
class HarnessPrompt(TemplatePrompt):
    """The texts of lm-evaluation-harness: each task's own delimiters and description (`data.task.Wording`).

    Other sources say nothing of their wording and get the strings of the keys.
    """

    name: Name = "lm_eval"

    def bind(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> BoundPrompt:
        """The format ready for use; each task brings its words.

        Raises:
            ConfigError: see `PromptConfig.bind`.
        """

        def worded(wording: Wording) -> Frame:
            own = replace(self, example=f"{{input}}{wording.between}{{output}}", separator=wording.separator)
            return replace(own.text_frame(method), opening=wording.instruction)

        return replace(PromptConfig.bind(self, method, model_name, tokenizer), worded=worded)


@dataclass(frozen=True, slots=True)
class ChatPrompt(PromptConfig):
    """The tokenizer's chat template: the answer is the assistant's turn, and is what is scored.

    Direct: the user says the input, the assistant the output. Channel: the other way round.
    """

    name: Name = "chat"
    _: KW_ONLY
    system: str | None = None
    """Text of a system turn, or None for whatever the template does without one."""
    labels: Mapping[str, str] | None = None
    """What is shown for an output; outputs without an entry stay. None maps nothing."""
    options: Mapping[str, Any] | None = None
    """Variables for the template, for example `enable_thinking: false`, or None."""
    thinking: Thinking = Thinking.AS_TEMPLATE
    """What stands in front of an answer where the template knows of thinking."""
    demonstrations_as: DemonstrationsAs = DemonstrationsAs.TURNS
    """Demonstrations are turns, or stand with the query in one turn of the user."""
    example: str = "{input}\n{output}"
    """An example in one turn, as in `TemplatePrompt`."""
    channel_example: str | None = None
    """The same for the channel objective."""
    separator: str = "\n\n"
    """Between examples in one turn."""

    def frame(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> Frame:
        """The template's texts, read off sample conversations."""
        return self._framed(method, self._read(method.objective, model_name, tokenizer)[1].frame)

    def bos_of(self, tokenizer: AnyTokenizer) -> Ids:
        """With `auto`, begin-of-sequence where the template writes it."""
        return self._bos(tokenizer, self._read(Objective.DIRECT, "", tokenizer)[1])

    def bind(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> BoundPrompt:
        """The format ready for use; a sample prompt has the ids of the template's own rendering, its answer included.

        Raises:
            ConfigError: see `PromptConfig.bind`, or other ids.
        """
        template, chat = self._read(method.objective, model_name, tokenizer)
        one_turn = self.demonstrations_as == DemonstrationsAs.ONE_TURN

        def said(text: str, target: bool, query: bool) -> str:
            return template.text(text, target and (query or not one_turn), query)

        bound = self._bound(self._framed(method, chat.frame), self._bos(tokenizer, chat), tokenizer)
        begun = bool(bound.bos) and chat.begins
        bound = replace(
            bound, said=said, notes=chat.notes, bos_text=str(tokenizer.bos_token) if begun else ""
        )
        if not chat.as_written:
            return bound
        around = (chat.frame.opening + chat.frame.query_before, chat.frame.query_middle) if one_turn else None
        begin = bos_ids(tokenizer, True) if chat.begins else ()
        differing = check_rendering(bound, template, tokenizer, begin, around)
        if differing is None:
            return bound
        if self.boundary == Boundary.JOINT:
            raise ConfigError("prompt", differing, "use prompt=template")
        return replace(bound, notes=(*bound.notes, f"prompt.boundary=separate: {differing}"))

    def trained_as(self) -> Any:
        """Everything but the tokenizer's template; keys at their first value are left out."""
        thinking = {} if self.thinking == Thinking.AS_TEMPLATE else {"thinking": self.thinking.value}
        one_turn = {
            "demonstrations_as": self.demonstrations_as.value,
            "example": self.example,
            "channel_example": self.channel_example,
            "separator": self.separator,
        }
        return {
            "name": "chat",
            "system": self.system,
            "labels": dict(self.labels or {}),
            "options": dict(self.options or {}),
            **thinking,
            **(one_turn if self.demonstrations_as == DemonstrationsAs.ONE_TURN else {}),
        }

    def _read(
        self, objective: Objective, model_name: str, tokenizer: AnyTokenizer
    ) -> tuple[ChatTemplate, Chat]:
        system = None if self.system is None else with_new_lines(self.system)
        template = ChatTemplate(tokenizer, model_name, system, self.options or {})
        bos = str(tokenizer.bos_token or "")
        return template, read_chat(template, objective, bos, labels=self.labels, thinking=self.thinking)

    def _bos(self, tokenizer: AnyTokenizer, chat: Chat) -> Ids:
        if self.bos != "auto":
            return bos_ids(tokenizer, self.bos)
        return bos_ids(tokenizer, True) if chat.begins else ()

    def _framed(self, method: Method, chat: TextFrame) -> TextFrame:
        """The frame of a chat, with the demonstrations where they are wanted."""
        _refuse_layout(method, self.name)
        if self.demonstrations_as == DemonstrationsAs.TURNS:
            return chat
        inner = TemplatePrompt(
            example=self.example,
            channel_example=self.channel_example,
            separator=self.separator,
            labels=self.labels,
        )
        return in_one_turn(chat, inner.text_frame(method))


def with_new_lines(text: str) -> str:
    """`text` with new lines for backslash-n."""
    return text.replace("\\n", "\n")


def _refuse_layout(method: Method, name: str) -> None:
    if method.layout != "auto":
        raise ConfigError(
            "method.layout",
            f"{method.layout!r} is a layout of prompt=metaicl, not of prompt={name}",
            "leave it at auto",
        )
