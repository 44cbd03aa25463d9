"""A prompt format made ready for one method and one tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from metashot.base.identity import NoEffect
from metashot.data.task import TaskData, Wording
from metashot.icl.prompting.boundary import EncodeSpans, continuing, split_jointly
from metashot.icl.prompting.control_tokens import ControlTokens, control_note
from metashot.icl.prompting.frame import Frame, TextFrame
from metashot.icl.prompting.prompt import Encode, Ids, Objective

_TOKENIZER = NoEffect(
    "follows from the format's keys and the model's tokenizer and template, which are identified"
)


@dataclass(frozen=True, slots=True)
class BoundPrompt:
    """A format made ready for one method and one tokenizer.

    Attributes:
        frame: the texts around inputs and outputs.
        bos: ids in front of every prompt.
        begin: ids in front of a target that would stand alone, so that its first token has something to follow.
        spans: tokenizes with offsets where pieces are tokenized jointly, else None.
        worded: makes the frame of a task whose source says how its parts are joined, or None.
        control: the tokenizer's control tokens, which a user's text holds as text; None reads them as the tokens.
        said: what a chat template makes of a text, told whether it is the answer that is scored or generated, and
            whether it stands in the query; None where nothing changes a text.
        notes: what the user should know of the format with this tokenizer.
        bos_text: the text that `bos` are the ids of, where a chat template writes it: what follows is tokenized behind it.
    """

    frame: Frame
    bos: Ids = ()
    spans: Annotated[EncodeSpans | None, _TOKENIZER] = None
    begin: Ids = ()
    worded: Annotated[
        Callable[[Wording], Frame] | None, NoEffect("`for_task` puts the frame that it makes in place")
    ] = None
    control: Annotated[ControlTokens | None, _TOKENIZER] = None
    said: Annotated[Callable[[str, bool, bool], str] | None, _TOKENIZER] = None
    notes: Annotated[tuple[str, ...], NoEffect("what the user is told")] = ()
    bos_text: str = ""

    def for_task(self, wording: Wording | None) -> BoundPrompt:
        """The format in the words of the task's source; itself where format or source has none."""
        if self.worded is None or wording is None:
            return self
        return replace(self, frame=self.worded(wording))

    def encoder(self, encode: Encode) -> Encode:
        """`encode` for the texts of this format: control tokens in a user's text stay text."""
        return encode if self.control is None else self.control.encoder(encode)

    def later_encoder(self, encode: Encode) -> Encode:
        """The same for a piece that stands behind others; the released format begins each as if it stood alone."""
        own = self.encoder(encode)
        return continuing(own) if isinstance(self.frame, TextFrame) else own

    def shown_text(self, text: str, *, target: bool, query: bool) -> str:
        """A user's text as it stands in a prompt.

        Args:
            text: an input or an output.
            target: whether it is on the side that is scored or generated.
            query: whether it stands in the example that is asked for.
        """
        if self.said is not None:
            text = self.said(text, target, query)
        return text if self.control is None else self.control.escape(text)

    def opening_ids(self, encode: Encode) -> Ids:
        """Ids of the text in front of everything, without `bos`."""
        return self.encoder(encode)(self.bos_text + self.frame.opening)[
            len(self.bos) if self.bos_text else 0 :
        ]

    def joined(self, texts: Sequence[str], tail: str = "") -> list[Ids]:
        """Ids of each of `texts`, tokenized as one behind begin-of-sequence; only where `spans` is set."""
        assert self.spans is not None
        texts, encode = [self.bos_text + texts[0], *texts[1:]], self.spans
        if self.control is not None:
            texts, encode = self.control.spans(texts) or (texts, encode)
        first, *others = split_jointly(texts, encode, tail)
        return [first[len(self.bos) if self.bos_text else 0 :], *others]

    def notes_on(self, data: TaskData) -> tuple[str, ...]:
        """What the user should know of a task's texts in this format."""
        if self.control is None:
            return ()
        examples = [*data.demonstrations, *data.test, *(one for row in data.neighbours for one in row)]
        texts = [text for one in examples for text in (one.input, one.output, *one.options)]
        note = control_note(data.task, [*texts, *data.unlabelled], self.control)
        return () if note is None else (note,)

    def ordered(self, source: Any, answer: Any) -> tuple[Any, Any]:
        """The two sides of an example in the order of the objective."""
        return (source, answer) if self.frame.objective is Objective.DIRECT else (answer, source)
