"""A prompt of a chat against the template's own rendering of its conversation."""

from __future__ import annotations

from typing import Any

from metashot.data.task import Example
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.icl.prompting.bound import BoundPrompt
from metashot.icl.prompting.chat import ChatTemplate, Rendering
from metashot.icl.prompting.pieces import PieceWriter
from metashot.icl.prompting.prompt import Ids, LengthLimits

_SHOWN = (("good day", "yes"), ("bad, cold night", "no"))
_ASKED = ("a fine 2nd morning", "yes")
_BEYOND = LengthLimits(1 << 20, 1 << 20)


def check_rendering(
    bound: BoundPrompt,
    template: ChatTemplate,
    tokenizer: AnyTokenizer,
    begin: Ids,
    around: tuple[str, str] | None,
) -> str | None:
    """What to say where a sample prompt and its answer are not how the ids of the template's rendering begin, else None.

    Args:
        bound: the format.
        template: renders the sample conversation.
        tokenizer: the model's own.
        begin: ids with which the template's rendering begins, and which the prompt may leave out.
        around: where one turn of the user holds all demonstrations, the texts in front of it and behind.
    """

    def encode(text: str) -> Ids:
        encoded: Any = tokenizer(text, add_special_tokens=False)
        return tuple(encoded["input_ids"])

    *shown, asked = (Example("", *pair, options=(pair[1],)) for pair in (*_SHOWN, _ASKED))
    (prompt,) = PieceWriter(bound, encode, _BEYOND).row(shown, asked)
    turns = [
        text for one in (*shown, asked) for text in bound.ordered(one.input, bound.frame.word(one.output))
    ]
    if around is not None:
        frame = bound.frame
        texts = [frame.opening]
        for place, one in enumerate(shown):
            stands = {"first": place == 0}
            texts += bound.ordered(
                frame.input_text(one.input, **stands), frame.output_text(one.output, **stands)
            )
        texts.append(
            bound.ordered(
                frame.input_text(asked.input, first=False, query=True),
                frame.output_text(asked.output, first=False, query=True),
            )[0]
        )
        turns = ["".join(texts).removeprefix(around[0]).removesuffix(around[1]), turns[-1]]
    written = encode(template.render(Rendering(turns))[0])[len(begin) :]
    ours = prompt.ids[len(bound.bos) :]
    if written[: len(ours)] == ours:
        return None
    place = next(n for n, one in enumerate(ours) if written[n : n + 1] != (one,))
    near = slice(max(0, place - 3), place + 5)
    return (
        f"the prompt has other ids than the rendering by the chat template of {template.model_name!r}: from token "
        f"{place} on {list(ours[near])}, the template's are {list(written[near])}"
    )
