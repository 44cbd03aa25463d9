"""`conf/prompt`: how examples become a prompt, as one component a format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from metashot.base.errors import ConfigError
from metashot.base.value_kinds import Name, Positive
from metashot.data.task import Wording
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.begin import BosChoice, begin_ids, bos_ids
from metashot.icl.prompting.boundary import Boundary, EncodeSpans, span_encoder
from metashot.icl.prompting.chat import chat_frame
from metashot.icl.prompting.frame import Frame, MetaiclFrame, TextFrame
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Ids, LengthLimits, Objective, Overlong, OverlongShots
from metashot.icl.prompting.template import template_frame

RELEASED_PROMPT = "metaicl"
"""Name of the released format, which every checkpoint has that names no other."""


@dataclass(frozen=True, slots=True)
class BoundPrompt:
    """A format made ready for one method and one tokenizer.

    Attributes:
        frame: the texts around inputs and outputs.
        bos: ids in front of every prompt.
        begin: ids in front of a target that would stand alone, so that its first token has something to follow.
        spans: tokenizes with offsets where pieces are tokenized jointly, else None.
        worded: makes the frame of a task whose source says how its parts are joined, or None.
    """

    frame: Frame
    bos: Ids = ()
    spans: EncodeSpans | None = None
    begin: Ids = ()
    worded: Callable[[Wording], Frame] | None = None

    def for_task(self, wording: Wording | None) -> BoundPrompt:
        """The format in the words of the task's source; itself where format or source has none."""
        if self.worded is None or wording is None:
            return self
        return replace(self, frame=self.worded(wording))

    def identity(self) -> dict[str, Any]:
        """What decides ids besides texts, tokenizer and limits; keys at their released value are left out."""
        identity = self.frame.identity()
        if self.bos:
            identity["bos"] = list(self.bos)
        if self.spans is not None:
            identity["boundary"] = Boundary.JOINT
        return identity


@dataclass(frozen=True, slots=True)
class PromptConfig(ABC):
    """How examples become a prompt; the formats are its subclasses.

    Attributes:
        name: the format's name.
        bos: `auto` (what the tokenizer itself prepends), True or False: begin-of-sequence in front of every prompt.
        boundary: pieces tokenized separately (MetaICL) or jointly.
        max_length: most tokens of a sequence with demonstrations.
        max_length_per_example: most tokens of one example, two of them reserved as in the released code.
        overlong: what happens to a test input that exceeds it: `cut_end` (released code), `cut_start` or `refuse`.
        overlong_shots: what happens to demonstrations that do not fit: `drop` (the first ones) or `refuse`.
    """

    name: Name
    _: KW_ONLY
    bos: BosChoice = "auto"
    boundary: Boundary = Boundary.SEPARATE
    max_length: Positive = 1024
    max_length_per_example: Positive = 256
    overlong: Overlong = Overlong.CUT_END
    overlong_shots: OverlongShots = OverlongShots.DROP

    @property
    def limits(self) -> LengthLimits:
        """The token limits."""
        return LengthLimits(self.max_length_per_example, self.max_length, self.overlong, self.overlong_shots)

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
        frame = self.frame(method, model_name, tokenizer)
        spans = span_encoder(tokenizer) if self.boundary is Boundary.JOINT else None
        return BoundPrompt(frame, self.bos_of(tokenizer), spans, begin_ids(tokenizer))


@dataclass(frozen=True, slots=True)
class MetaiclPrompt(PromptConfig):
    """The released layouts: separators only; `method.layout` says which."""

    name: str = RELEASED_PROMPT

    def frame(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> Frame:
        """Newlines or spaces, by the method and the model's name."""
        del tokenizer
        return MetaiclFrame(method.objective, method.layout_for(model_name))

    def trained_as(self) -> Any:
        """The name; the layout is the method's."""
        return RELEASED_PROMPT


@dataclass(frozen=True, slots=True)
class TemplatePrompt(PromptConfig):
    r"""Own strings around inputs and outputs; ``\n`` written out is a new line, which a command line cannot hold.

    Attributes:
        example: an example with `{input}` and `{output}`, in the order of the direct objective.
        channel_example: the same for the channel objective, `{output}` first; None swaps the lines of `example`.
        separator: between examples, and behind the instruction.
        instruction: in front of everything.
        labels: what is shown for an output; outputs without an entry stay. None maps nothing.
    """

    name: str = "template"
    _: KW_ONLY
    example: str = "{input}\n{output}"
    channel_example: str | None = None
    separator: str = "\n\n"
    instruction: str = ""
    labels: Mapping[str, str] | None = None

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

    name: str = "lm_eval"

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
    """The tokenizer's chat template: demonstrations are turns, the answer is what is scored.

    Direct: the user says the input, the assistant the output. Channel: the other way round.

    Attributes:
        system: text of a system turn, or None for whatever the template does without one.
        labels: what is shown for an output; outputs without an entry stay. None maps nothing.
        options: variables for the template, for example `enable_thinking: false`, or None.
    """

    name: str = "chat"
    _: KW_ONLY
    system: str | None = None
    labels: Mapping[str, str] | None = None
    options: Mapping[str, Any] | None = None

    def frame(self, method: Method, model_name: str, tokenizer: AnyTokenizer) -> Frame:
        """The template's texts, read off a sample conversation."""
        _refuse_layout(method, self.name)
        return chat_frame(
            tokenizer,
            method.objective,
            model_name=model_name,
            system=self._system,
            labels=self.labels,
            options=self.options,
        )[0]

    @property
    def _system(self) -> str | None:
        return None if self.system is None else with_new_lines(self.system)

    def bos_of(self, tokenizer: AnyTokenizer) -> Ids:
        """With `auto`, begin-of-sequence where the template writes it."""
        if self.bos != "auto":
            return bos_ids(tokenizer, self.bos)
        _, begins = chat_frame(
            tokenizer, Objective.DIRECT, model_name="", system=self._system, labels={}, options=self.options
        )
        return bos_ids(tokenizer, True) if begins else ()

    def trained_as(self) -> Any:
        """Everything but the tokenizer's template."""
        return {
            "name": "chat",
            "system": self.system,
            "labels": dict(self.labels or {}),
            "options": dict(self.options or {}),
        }


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
