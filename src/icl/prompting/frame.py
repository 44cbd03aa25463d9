"""A frame: the texts that stand around inputs and outputs, fixed for one objective and one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from metashot.base.errors import ConfigError
from metashot.icl.prompting.prompt import Layout, Objective, input_text, output_text


class Frame(Protocol):
    """What turns an example's two sides into the two pieces of text that a prompt is made of.

    The target comes last: direct prompts read input then output, channel prompts output then input. Whatever stands
    behind an example's second side opens the next example's first piece, so that a query ends with its target.
    """

    @property
    def objective(self) -> Objective:
        """Which side is the target."""
        ...

    @property
    def opening(self) -> str:
        """Text in front of everything (an instruction, a system turn); no cut removes it."""
        ...

    @property
    def tail(self) -> str:
        """Text behind the target, which is not scored: it only decides how the target's end is tokenized."""
        ...

    @property
    def keeps_whole(self) -> bool:
        """Demonstrations that do not fit are dropped one by one, never cut inside."""
        ...

    def input_text(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        """The input's piece.

        Args:
            text: the input.
            first: True in the first example of a prompt.
            no_label: labels are left out of the demonstrations.
            query: True in the example that is asked for.
        """
        ...

    def output_text(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        """The output's piece, or one option's in its place."""
        ...

    def word(self, output: str) -> str:
        """What is shown for an output."""
        ...

    def check_options(self, task: str, options: Sequence[str]) -> None:
        """Raise ConfigError for options that cannot be told apart in this frame."""
        ...


@dataclass(frozen=True, slots=True)
class MetaiclFrame:
    """Separators only, as in the released MetaICL code (`icl.prompt`).

    Attributes:
        objective: which side is the target.
        layout: newlines or spaces.
    """

    objective: Objective
    layout: Layout

    @property
    def opening(self) -> str:
        """Nothing."""
        return ""

    @property
    def tail(self) -> str:
        """Nothing."""
        return ""

    @property
    def keeps_whole(self) -> bool:
        """Tokens are dropped from the left, as in the released code."""
        return False

    def input_text(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        """The input with its separator."""
        return input_text(
            text, objective=self.objective, layout=self.layout, first=first, no_label=no_label, query=query
        )

    def output_text(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        """The output with its separator."""
        del query
        return output_text(text, objective=self.objective, layout=self.layout, first=first, no_label=no_label)

    def word(self, output: str) -> str:
        """The output itself."""
        return output

    def check_options(self, task: str, options: Sequence[str]) -> None:
        """Any options will do."""


@dataclass(frozen=True, slots=True)
class TextFrame:
    """Fixed strings around the two sides: what a template or a chat template amounts to.

    A prompt with one demonstration, direct:
    ``opening before IN middle lead OUT query_gap IN query_middle query_lead OPTION tail``;
    without one: ``opening query_before IN query_middle query_lead OPTION tail``.

    Attributes:
        objective: which side comes last.
        opening: in front of everything.
        before: in front of the first demonstration's first side.
        gap: from a demonstration's second side to the next demonstration.
        middle: behind a demonstration's first side; a part of the first piece.
        lead: blanks in front of its second side; they belong to the second piece, so that a word keeps its blank.
        query_before: in front of a query that no demonstration precedes.
        query_gap: from the last demonstration to the query.
        query_middle: behind the query's first side.
        query_lead: blanks in front of its second side.
        tail: behind the query's second side; not scored.
        words: what is shown for an output, as (output, word) pairs.
        turns: examples are turns of a chat: white space around texts is taken off, and an empty turn stays a turn.
    """

    objective: Objective
    opening: str
    before: str
    gap: str
    middle: str
    lead: str
    query_before: str
    query_gap: str
    query_middle: str
    query_lead: str
    tail: str = ""
    words: tuple[tuple[str, str], ...] = ()
    turns: bool = False

    @property
    def keeps_whole(self) -> bool:
        """Half an example would break the form."""
        return True

    @property
    def alike(self) -> bool:
        """Whether a demonstration stands in the prompt as the query does."""
        shown = (self.before, self.gap, self.middle, self.lead)
        return shown == (self.query_before, self.query_gap, self.query_middle, self.query_lead)

    def input_text(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        """The input in its place."""
        shown = text.strip() if self.turns else text
        bare = no_label and not self.turns
        if self.objective is Objective.DIRECT:
            return self._first_side(shown, first=first, query=query, bare=bare)
        if bare:
            return (self.middle + self.lead).lstrip() + shown
        return (self.query_lead if query else self.lead) + shown

    def output_text(self, text: str, *, first: bool, no_label: bool = False, query: bool = False) -> str:
        """The output's word in its place."""
        shown = self.word(text).strip() if self.turns else self.word(text)
        bare = no_label and not self.turns
        if self.objective is Objective.DIRECT:
            return "" if bare else (self.query_lead if query else self.lead) + shown
        if bare:
            return "" if first else self.gap.removesuffix(self.before)
        return self._first_side(shown, first=first, query=query, bare=False)

    def _first_side(self, text: str, *, first: bool, query: bool, bare: bool) -> str:
        if query:
            return (self.query_before if first else self.query_gap) + text + self.query_middle
        return (self.before if first else self.gap) + text + ("" if bare else self.middle)

    def word(self, output: str) -> str:
        """The output's label word."""
        return dict(self.words).get(output, output)

    def check_options(self, task: str, options: Sequence[str]) -> None:
        """Refuse a mapping of label words that covers some options only, or gives two of them one word."""
        known = dict(self.words)
        if not any(option in known for option in options):
            return
        left_out = [option for option in options if option not in known]
        if left_out:
            raise ConfigError(
                "prompt.labels",
                f"has no word for {left_out[0]!r}, an option of task {task!r}",
                "give every option a word",
            )
        shown = [known[option] for option in options]
        doubled = [word for word in shown if shown.count(word) > 1]
        if doubled:
            raise ConfigError(
                "prompt.labels",
                f"gives two options of task {task!r} the word {doubled[0]!r}",
                "tell them apart",
            )


def word_pairs(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """A mapping of label words in a fixed order."""
    return tuple(sorted(labels.items()))


def shorten(text: str, room: int, tokens: Callable[[str], int], *, from_start: bool = False) -> str:
    """The longest start of an input whose piece takes at most `room` tokens; at worst the empty text.

    Args:
        text: the input.
        room: most tokens.
        tokens: those of the piece with a part of the input in its place.
        from_start: cut the start off instead, so that the longest end is kept.
    """

    def kept(length: int) -> str:
        return text[len(text) - length :] if from_start else text[:length]

    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tokens(kept(middle)) <= room else (low, middle - 1)
    return kept(low)
