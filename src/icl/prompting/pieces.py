"""From examples to the pieces of one prompt: cut to the per-example limit, tokenized separately or jointly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metashot.data.task import Example
from metashot.icl.prompting.bound import BoundPrompt
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
        self._prompt = prompt
        self._frame = prompt.frame
        self._joint = prompt.spans is not None
        self._encode = prompt.encoder(encode)
        self._later = prompt.later_encoder(encode)
        self._front = prompt.bos + prompt.opening_ids(encode)
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
        answers = [self._output(option, first=first, query=True) for option in query.options]
        source, source_ids, lost = self._query_input(
            query.task, text, max(map(self._count, answers)), first=first
        )
        direct = self._frame.objective is Objective.DIRECT
        shown = [self._frame.word(option) if direct else text for option in query.options]
        ordered = self._prompt.ordered
        if not self._joint:
            pieces = self.shown_ids(demonstrations)
            start = first and not self._frame.opening
            if direct:
                ids = [(source_ids, self._later(answer)) for answer in answers]
            else:
                ids = [(self._piece(answer, start), source_ids) for answer in answers]
            return [
                Prompt(self._front, pieces, *pair, word, lost) for pair, word in zip(ids, shown, strict=True)
            ]
        before = [self._frame.opening, *self._shown_texts(demonstrations)]
        # Without an answer the text is one to be continued, and nothing is known to stand behind it.
        joined = [
            self._prompt.joined([*before, *ordered(source, answer)], self._frame.tail if option else "")
            for answer, option in zip(answers, query.options, strict=True)
        ]
        prompts = [
            Prompt(self._prompt.bos + parts[0], tuple(parts[1:-2]), parts[-2], parts[-1], word, lost)
            for parts, word in zip(joined, shown, strict=True)
        ]
        return split_alike(prompts) if direct else prompts

    def shown_ids(self, demonstrations: Sequence[Example]) -> tuple[Ids, ...]:
        """Two pieces for each demonstration, tokenized separately."""
        no_label = shows_no_label(demonstrations)
        pieces: list[Ids] = []
        for number, example in enumerate(demonstrations):
            source, answer, text_cut = self._demonstration(example, first=number == 0, no_label=no_label)
            start = number == 0 and not self._frame.opening
            direct = self._frame.objective is Objective.DIRECT
            ids = self._piece(source, start and direct), self._piece(answer, start and not direct)
            if not text_cut:
                ids = cut_example(example.task, *ids, self._limits)
            pieces += self._prompt.ordered(*ids)
        return tuple(pieces)

    def _shown_texts(self, demonstrations: Sequence[Example]) -> list[str]:
        no_label = shows_no_label(demonstrations)
        texts: list[str] = []
        for number, example in enumerate(demonstrations):
            source, answer, _ = self._demonstration(example, first=number == 0, no_label=no_label)
            texts += self._prompt.ordered(source, answer)
        return texts

    def _demonstration(self, example: Example, *, first: bool, no_label: bool) -> tuple[str, str, bool]:
        """Texts of both sides, and whether the input was cut to the limit already (else ids are)."""
        source = self._input(example.input, first=first, no_label=no_label)
        answer = self._output(example.output, first=first, no_label=no_label)
        if self._cuts_ids:
            return source, answer, False
        check_output_fits(example.task, self._count(answer), self._limits)
        room = self._limits.example_room - self._count(answer)
        if self._count(source) > room:
            kept = shorten(
                example.input,
                room,
                lambda text: self._count(self._input(text, first=first, no_label=no_label)),
            )
            source = self._input(kept, first=first, no_label=no_label)
        return source, answer, True

    def _query_input(self, task: str, text: str, longest_answer: int, *, first: bool) -> tuple[str, Ids, int]:
        """The query's input piece, cut so that the longest option fits, and the tokens that it lost."""
        start = first and not self._frame.opening and self._frame.objective is Objective.DIRECT
        source = self._input(text, first=first, query=True)
        ids = self._piece(source, start)
        room = query_room(task, len(ids), longest_answer, self._limits)
        if len(ids) <= room:
            return source, ids, 0
        from_start = self._limits.overlong is Overlong.CUT_START
        if self._cuts_ids and not from_start:
            return source, ids[:room], len(ids) - room

        def tokens(kept: str) -> int:
            return len(self._piece(self._input(kept, first=first, query=True), start))

        source = self._input(shorten(text, room, tokens, from_start=from_start), first=first, query=True)
        kept = self._piece(source, start)
        return source, kept, len(ids) - len(kept)

    @property
    def _cuts_ids(self) -> bool:
        """The released cut works on ids; other frames have text behind an input that must stay."""
        return not self._joint and isinstance(self._frame, MetaiclFrame)

    def _input(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        target = self._frame.objective is Objective.CHANNEL
        shown = self._prompt.shown_text(text, target=target, query=query)
        return self._frame.input_text(shown, first=first, no_label=no_label, query=query)

    def _output(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        target = self._frame.objective is Objective.DIRECT
        # A label word is the format's own.
        own = self._frame.word(text) == text
        shown = self._prompt.shown_text(text, target=target, query=query) if own else text
        return self._frame.output_text(shown, first=first, no_label=no_label, query=query)

    def _piece(self, text: str, start: bool) -> Ids:
        """Ids of a piece, which others precede unless the text starts with it."""
        return self._encode(text) if start else self._later(text)

    def _count(self, text: str) -> int:
        return len(self._later(text))


def split_alike(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of one question with as many tokens in front of the targets.

    A token over the border belongs to the target; where an option has one, the others' last token in front of the
    border does so too, so that all options are scored from the same prompt.
    """
    least = min(len(prompt.head) for prompt in prompts)
    if all(len(prompt.head) == least for prompt in prompts):
        return list(prompts)
    return [
        replace(prompt, head=prompt.head[:least], target=prompt.head[least:] + prompt.target)
        for prompt in prompts
    ]


def shows_no_label(demonstrations: Sequence[Example]) -> bool:
    """Whether labels are left out: every output is empty (the released code looks at the options likewise)."""
    return bool(demonstrations) and not any(example.output for example in demonstrations)
