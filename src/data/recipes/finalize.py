"""The last step: from a raw pair to the line that is written.

Source of the released rules: the released preprocessing code (docs/methods.md, the last step of a recipe).
"""

from __future__ import annotations

import string
from collections.abc import Iterable

from metashot.data.recipes.choice_kinds import NO_ANSWER, repair_written
from metashot.data.recipes.keys import CommonKeys, OptionMarks, ReleasedRule
from metashot.data.recipes.rows import (
    AnsweredPair,
    AnyPair,
    ChoicePair,
    left_out,
    stopped,
)
from metashot.data.recipes.spec import GroupedChoices, WrittenChoices
from metashot.data.task import Example

SEPARATOR = "[SEP]"
_LAST_NUMBER = 99


def finish(spec: CommonKeys, options: tuple[str, ...], pair: AnyPair) -> Example:
    """Apply the released last step and cut options out of the text, each where the recipe says so.

    Args:
        spec: the recipe.
        options: its fixed options, made a tuple once by the caller.
        pair: raw input and output.

    Raises:
        Dropped: the published data leaves such a pair out, or the original stopped on it.
    """
    text, output = pair.input, pair.output
    if ReleasedRule.LAST_STEP in spec.as_released:
        text = text.strip().replace("\\n", " ")
        output = output.split("\t", 1)[0].strip()
    if isinstance(pair, ChoicePair):
        return Example(spec.name, text, output, pair.options)
    if isinstance(pair, AnsweredPair):
        return Example(spec.name, text, output, options, pair.references)
    if isinstance(spec.options, OptionMarks):
        return _with_cut_options(spec, spec.options, text, output)
    return Example(spec.name, text, output, options)


def cut_at_marks(text: str, first_mark: str) -> tuple[str, list[str]]:
    """Cut a text at ` (A) `, ` (B) `, ... and strip the pieces.

    Each mark is looked for only behind the one before; the first one not found ends the search.

    Args:
        text: what to cut.
        first_mark: ` (A) `, `(A)` or ` (1) `; gives the style of the marks.

    Returns:
        The piece before the first mark (the whole text, unstripped, without a mark) and the others.
    """
    pieces: list[str] = []
    rest = text
    for mark in _marks(first_mark):
        before, found, after = rest.partition(mark)
        if not found:
            break
        pieces.append(before)
        rest = after
    if not pieces:
        return text, []
    pieces.append(rest)
    return pieces[0].strip(), [piece.strip() for piece in pieces[1:]]


def _with_cut_options(spec: CommonKeys, marks: OptionMarks, text: str, output: str) -> Example:
    if isinstance(spec, GroupedChoices) and output == NO_ANSWER:
        raise left_out("question without a right answer")
    context = ""
    if spec.context_first:
        if text.count(SEPARATOR) != 1:
            raise stopped(f"not exactly one {SEPARATOR}")
        text, context = text.split(SEPARATOR)
    question, options = cut_at_marks(text, marks.cut_at)
    forbidden = SEPARATOR
    if not options and marks.or_at is not None:
        question, options = cut_at_marks(text, marks.or_at)
        forbidden = "SEP"  # the original's number branch compares without the brackets
    if isinstance(spec, WrittenChoices):
        output, options = repair_written(spec, output, options)
    if options:
        _check(spec, options, output, forbidden)
    return Example(spec.name, _joined(spec, context, question), output, tuple(options))


def _check(spec: CommonKeys, options: list[str], output: str, forbidden: str) -> None:
    if len(options) < 2:
        reason = "only one option"
        raise left_out(reason) if isinstance(spec, GroupedChoices) else stopped(reason)
    if any(forbidden in option for option in options):
        raise stopped(f"an option holds {forbidden}")
    if output not in options:
        raise stopped("the answer is not among the options")


def _joined(spec: CommonKeys, context: str, question: str) -> str:
    if not spec.context_first:
        return question
    if not spec.context_joint:
        return context + question
    return spec.context_joint.join(part for part in (context.strip(), question.strip()) if part)


def _marks(first_mark: str) -> Iterable[str]:
    if "A" in first_mark:
        return (first_mark.replace("A", letter) for letter in string.ascii_uppercase)
    return (first_mark.replace("1", str(number)) for number in range(1, _LAST_NUMBER + 1))
