r"""UnifiedQA's text files: one example a line, `question \n context TAB answer`, with a literal backslash-n.

Source: the released `preprocess/unifiedqa.py` (docs/methods.md, UnifiedQA tasks). These tasks do not pass through the last step of the others.
"""

from __future__ import annotations

import re
import string

from metashot.data.recipes.finalize import cut_at_marks
from metashot.data.recipes.kinds import Generator, PairOf
from metashot.data.recipes.rows import (
    AnyPair,
    Pair,
    Row,
    left_out,
    lookup,
    stopped,
    text_of,
)
from metashot.data.recipes.spec import UnifiedqaPool, UnifiedqaTarget
from metashot.data.task import Example

SEPARATOR = "\\n"
WORD_LIMIT = 200
"""Longest input, in pieces between single blanks, before a window is taken."""
ANSWER_LIMIT = 100
"""Longest answer, in the same pieces."""
_PATIENCE = 50
"""Failed draws after which it is checked that some window can succeed."""
_DETOKENISED = ((" , ", ", "), ("( ", "("), (" )", ")"), (" - - ", " - "), (" . ", ". "))
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def unifiedqa_pool(spec: UnifiedqaPool, generator: Generator) -> PairOf:
    """Training line to pair; draws window starts from the generator that later draws the permutation."""

    def pair(row: Row) -> Pair:
        fields = _line(row).split("\t")
        if len(fields) != 2:
            raise left_out("line without exactly two tab-separated fields")
        text, answer = fields
        if spec.answer_in_text and normalised(answer) not in normalised(text):
            raise left_out("answer not in the text")
        text = _arranged(spec, text)
        if spec.answer_in_text and _n_pieces(text) > WORD_LIMIT:
            text = _window(spec, text, answer, generator)
        # Checked last, so that a dropped row has used up its random numbers.
        if _n_pieces(answer) > ANSWER_LIMIT:
            raise left_out("answer of more than 100 words")
        return Pair(text, answer)

    return pair


def unifiedqa_target(_: UnifiedqaTarget, __: Generator) -> PairOf:
    """Target line to pair, untouched."""

    def pair(row: Row) -> Pair:
        line = _line(row)
        if not line:
            raise left_out("blank line")
        fields = line.split("\t")
        if len(fields) != 2:
            raise stopped("line without exactly two tab-separated fields")
        return Pair(*fields)

    return pair


def finish_pool(spec: UnifiedqaPool, pair: AnyPair) -> Example:
    """Training examples carry no options, even where the task has some."""
    return Example(spec.name, pair.input, pair.output, ())


def finish_target(spec: UnifiedqaTarget, pair: AnyPair) -> Example:
    """Options move from the text into their list; the blanks around the separators stay: models saw them."""
    segments = pair.input.split(SEPARATOR)
    if len(segments) == 3:
        question, options, context = segments
        segments = [question, "  " + context + " ", " " + options]
    last = segments[-1].strip()
    if not last.startswith("(A)"):
        if pair.output in ("yes", "no"):
            return Example(spec.name, pair.input, pair.output, ())
        raise stopped("no lettered options and no yes/no answer")
    options = tuple(piece for piece in cut_at_marks(last, "(A)")[1] if piece)
    if pair.output not in options:
        raise stopped("the answer is not among the options")
    text = " ".join(segments[:-1])
    return Example(spec.name, " ".join(text.split()) if spec.tidy else text, pair.output, options)


def normalised(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks: how answers are compared with texts."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _line(row: Row) -> str:
    return text_of(lookup(row, "line"), "line").strip()


def _n_pieces(text: str) -> int:
    return len(text.split(" "))


def _arranged(spec: UnifiedqaPool, text: str) -> str:
    segments = text.split(SEPARATOR)
    if spec.segments == "drop_options":
        if len(segments) != 3:
            raise stopped("not exactly three segments")
        return segments[0] + SEPARATOR + segments[2]
    if len(segments) > 3:
        raise stopped("three or more separators")
    if spec.detokenise:
        for old, new in _DETOKENISED:
            text = text.replace(old, new)
    return text


def _window(spec: UnifiedqaPool, text: str, answer: str, generator: Generator) -> str:
    segments = text.split(SEPARATOR)
    if len(segments) != 2:
        raise stopped("a long text without exactly one separator")
    question, context = segments
    wanted = normalised(answer)
    if wanted not in normalised(context):
        raise left_out("long text whose context lacks the answer")
    pieces = context.split(" ")
    length = WORD_LIMIT - _n_pieces(question) - 1
    n_starts = len(pieces) - length + 1
    attempts = 0
    while wanted not in normalised(window := _draw(pieces, length, n_starts, generator)):
        attempts += 1
        # The original would draw for ever where no window holds the answer.
        if attempts == _PATIENCE and not _any_window_holds(wanted, pieces, length, n_starts):
            raise stopped("no window holds the answer")
    return question + spec.window_joint + window


def _draw(pieces: list[str], length: int, n_starts: int, generator: Generator) -> str:
    start = int(generator.randint(0, n_starts))
    return " ".join(pieces[start : start + length])


def _any_window_holds(wanted: str, pieces: list[str], length: int, n_starts: int) -> bool:
    return any(wanted in normalised(" ".join(pieces[start : start + length])) for start in range(n_starts))
