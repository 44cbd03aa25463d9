"""From examples to the pieces of one prompt: cut to the per-example limit, tokenized separately or jointly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from metashot.data.task import Example
from metashot.icl.prompting.boundary import split_jointly
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import MetaiclFrame, shorten
from metashot.icl.prompting.prompt import (
    Encode,
    Ids,
    LengthLimits,
    Objective,
    Overlong,
    check_output_fits,
    cut_example,
    query_room,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One (test example, option) before the cut of the demonstrations.

    Attributes:
        front: begin-of-sequence and opening text; never cut.
        shown: two pieces for each demonstration, in order.
        head: the query's first piece.
        target: its second piece, the scored one.
        text: what the target shows, without separators.
        lost: tokens that the query's input lost to the limit of an example.
    """

    front: Ids
    shown: tuple[Ids, ...]
    head: Ids
    target: Ids
    text: str
    lost: int = 0

    @property
    def fixed(self) -> int:
        """Tokens that no cut of the demonstrations removes."""
        return len(self.front) + len(self.head) + len(self.target)

    @property
    def ids(self) -> Ids:
        """All of it."""
        return (*self.front, *(token for piece in self.shown for token in piece), *self.head, *self.target)

    @property
    def demonstration_tokens(self) -> int:
        """Tokens of all demonstrations."""
        return sum(map(len, self.shown))


class PieceWriter:
    """Writes the prompts of one cell.

    Args:
        prompt: format, begin-of-sequence and boundary.
        encode: text to ids; called again with equal texts, so it should remember.
        limits: token limits.
    """

    def __init__(self, prompt: BoundPrompt, encode: Encode, limits: LengthLimits) -> None:
        self._frame = prompt.frame
        self._bos = prompt.bos
        self._spans = prompt.spans
        self._encode = encode
        self._limits = limits

    def row(
        self, demonstrations: Sequence[Example], query: Example, replaced: str | None = None
    ) -> list[Prompt]:
        """A prompt for each option of `query`.

        Args:
            demonstrations: what is shown, in order.
            query: what is asked.
            replaced: a content-free input in place of its own.

        Raises:
            DataError: an output longer than an example may be.
            ConfigError: label words that do not tell the options apart.
        """
        self._frame.check_options(query.task, query.options)
        text = query.input if replaced is None else replaced
        first = not demonstrations
        answers = [self._frame.output_text(option, first=first, query=True) for option in query.options]
        source, source_ids, lost = self._query_input(
            query.task, text, max(map(self._count, answers)), first=first
        )
        direct = self._frame.objective is Objective.DIRECT
        shown = [self._frame.word(option) if direct else text for option in query.options]
        if self._spans is None:
            front, pieces = self._bos + self._encode(self._frame.opening), self.shown_ids(demonstrations)
            ids = [self._ordered(source_ids, self._encode(answer)) for answer in answers]
            return [Prompt(front, pieces, *pair, word, lost) for pair, word in zip(ids, shown, strict=True)]
        before = [self._frame.opening, *self._shown_texts(demonstrations)]
        joined = [split_jointly([*before, *self._ordered(source, answer)], self._spans) for answer in answers]
        return [
            Prompt(self._bos + parts[0], tuple(parts[1:-2]), parts[-2], parts[-1], word, lost)
            for parts, word in zip(joined, shown, strict=True)
        ]

    def shown_ids(self, demonstrations: Sequence[Example]) -> tuple[Ids, ...]:
        """Two pieces for each demonstration, tokenized separately."""
        no_label = shows_no_label(demonstrations)
        pieces: list[Ids] = []
        for number, example in enumerate(demonstrations):
            source, answer, text_cut = self._demonstration(example, first=number == 0, no_label=no_label)
            ids = self._encode(source), self._encode(answer)
            if not text_cut:
                ids = cut_example(example.task, *ids, self._limits)
            pieces += self._ordered(*ids)
        return tuple(pieces)

    def _shown_texts(self, demonstrations: Sequence[Example]) -> list[str]:
        no_label = shows_no_label(demonstrations)
        texts: list[str] = []
        for number, example in enumerate(demonstrations):
            source, answer, _ = self._demonstration(example, first=number == 0, no_label=no_label)
            texts += self._ordered(source, answer)
        return texts

    def _demonstration(self, example: Example, *, first: bool, no_label: bool) -> tuple[str, str, bool]:
        """Texts of both sides, and whether the input was cut to the limit already (else ids are)."""
        source = self._frame.input_text(example.input, first=first, no_label=no_label)
        answer = self._frame.output_text(example.output, first=first, no_label=no_label)
        if self._cuts_ids:
            return source, answer, False
        check_output_fits(example.task, self._count(answer), self._limits)
        room = self._limits.example_room - self._count(answer)
        if self._count(source) > room:
            kept = shorten(self._frame, example.input, room, self._encode, first=first, no_label=no_label)
            source = self._frame.input_text(kept, first=first, no_label=no_label)
        return source, answer, True

    def _query_input(self, task: str, text: str, longest_answer: int, *, first: bool) -> tuple[str, Ids, int]:
        """The query's input piece, cut so that the longest option fits, and the tokens that it lost."""
        source = self._frame.input_text(text, first=first, query=True)
        ids = self._encode(source)
        room = query_room(task, len(ids), longest_answer, self._limits)
        if len(ids) <= room:
            return source, ids, 0
        from_start = self._limits.overlong is Overlong.CUT_START
        if self._cuts_ids and not from_start:
            return source, ids[:room], len(ids) - room
        short = shorten(self._frame, text, room, self._encode, first=first, query=True, from_start=from_start)
        source = self._frame.input_text(short, first=first, query=True)
        kept = self._encode(source)
        return source, kept, len(ids) - len(kept)

    @property
    def _cuts_ids(self) -> bool:
        """The released cut works on ids; other frames have text behind an input that must stay."""
        return self._spans is None and isinstance(self._frame, MetaiclFrame)

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _ordered(self, source: _T, answer: _T) -> tuple[_T, _T]:
        """The two sides of an example in the order of the objective."""
        return (source, answer) if self._frame.objective is Objective.DIRECT else (answer, source)


def shows_no_label(demonstrations: Sequence[Example]) -> bool:
    """Whether labels are left out: every output is empty (the released code looks at the options likewise)."""
    return bool(demonstrations) and not any(example.output for example in demonstrations)
