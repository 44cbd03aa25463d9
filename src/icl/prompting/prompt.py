"""Text to ids: how an example is serialized, cut and joined (docs/methods.md, serialization).

Every example becomes two pieces, `first` and `second`, which are tokenized separately and joined as ids; no special
token is added. Direct: first = input, second = output. Channel: first = label, second = input. The last second piece
of a sequence is the target; its leading separator is a scored token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from metashot.base.errors import DataError

Ids = tuple[int, ...]
Encode = Callable[[str], Ids]

RESERVED_TOKENS = 2
"""Room that the released code still keeps for the BOS and EOS that it no longer adds."""


class Objective(StrEnum):
    """Which side of an example is the target."""

    DIRECT = "direct"
    """Score the output given the input: P(y | x)."""
    CHANNEL = "channel"
    """Score the input given the output: P(x | y)."""


class Layout(StrEnum):
    """How pieces are separated."""

    NEWLINE = "newline"
    """One newline inside an example, three between examples; all meta-trained models and most raw ones."""
    SPACE = "space"
    """Single spaces everywhere; raw GPT-2 in the released code."""


class Overlong(StrEnum):
    """What happens to a test input that does not fit beside its longest option."""

    CUT_END = "cut_end"
    """Its end is cut off (released code)."""
    CUT_START = "cut_start"
    """Its start is cut off."""
    REFUSE = "refuse"
    """The run stops before anything is computed."""


class OverlongShots(StrEnum):
    """What happens when not all k demonstrations fit."""

    DROP = "drop"
    """The first ones are left out, and the run says so."""
    REFUSE = "refuse"
    """An error."""


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """Token limits of one sequence (released values are the defaults).

    Attributes:
        per_example: an example keeps at most this minus two tokens.
        sequence: most tokens in a sequence with demonstrations.
        overlong: what happens to a test input that exceeds the limit of an example.
        overlong_shots: what happens to demonstrations that do not fit into a sequence.
    """

    per_example: int = 256
    sequence: int = 1024
    overlong: Overlong = Overlong.CUT_END
    overlong_shots: OverlongShots = OverlongShots.DROP

    @property
    def example_room(self) -> int:
        """Tokens that both pieces of an example may take together."""
        return self.per_example - RESERVED_TOKENS


def choose_layout(model_name: str, *, trained: bool) -> Layout:
    """The released rule: spaces only for a raw LM whose name starts with `gpt2`."""
    return Layout.SPACE if not trained and model_name.startswith("gpt2") else Layout.NEWLINE


def input_text(
    text: str,
    *,
    objective: Objective,
    layout: Layout,
    first: bool,
    no_label: bool = False,
    query: bool = False,
) -> str:
    """An example's input with its separator.

    In channel scoring an empty test input (`query`) keeps its separator, where the released code leaves nothing to
    score.
    """
    if objective is Objective.DIRECT:
        return _leading(text, layout, first, empty_later="\n\n")
    if layout is Layout.SPACE:
        return f" {text}"
    return f"\n{text}" if (text or query) and not no_label else text


def output_text(
    text: str, *, objective: Objective, layout: Layout, first: bool, no_label: bool = False
) -> str:
    """An example's output, or one option in its place, with its separator.

    Args:
        text: the output or option.
        objective: direct puts it second, channel first.
        layout: separators.
        first: True for the first example of a sequence.
        no_label: leave the label out, as in the no-label ablation; the separators go with it.
    """
    if objective is Objective.CHANNEL:
        return _leading("" if no_label else text, layout, first, empty_later="\n\n\n")
    if layout is Layout.SPACE:
        return f" {text}"
    return "" if no_label else f"\n{text}"


def _leading(text: str, layout: Layout, first: bool, *, empty_later: str) -> str:
    if first:
        return text
    if layout is Layout.SPACE:
        return f" {text}"
    return f"\n\n\n{text}" if text else empty_later


def cut_example(task: str, input_ids: Ids, output_ids: Ids, limits: LengthLimits) -> tuple[Ids, Ids]:
    """Cut a demonstration or training example to the per-example limit (released code, `is_training` branch).

    The head of the input is kept. Instruction tasks (`inst:...`) may lose the end of the output instead.

    Returns:
        (input ids, output ids), together at most `limits.example_room` long.

    Raises:
        DataError: the output alone is too long.
    """
    room = limits.example_room
    if len(input_ids) < room - len(output_ids):
        return input_ids, output_ids
    half = limits.per_example // 2
    if task.startswith(("inst:piqa", "inst:yahoo_answers_topics")):
        if len(input_ids) + len(output_ids) + RESERVED_TOKENS > limits.per_example:
            return input_ids[:half], output_ids[: half - RESERVED_TOKENS]
        return input_ids, output_ids
    if task.startswith("inst:") and len(input_ids) < len(output_ids):
        return input_ids, output_ids[: room - len(input_ids)]
    check_output_fits(task, len(output_ids), limits)
    return input_ids[: room - len(output_ids)], output_ids


def query_room(task: str, input_tokens: int, longest_option: int, limits: LengthLimits) -> int:
    """Tokens that a test input may keep so that its longest option still fits; every option sees the same input.

    Raises:
        DataError: an option alone is too long, or the input is and `overlong` refuses to cut it.
    """
    check_output_fits(task, longest_option, limits)
    room = limits.example_room - longest_option
    if input_tokens > room and limits.overlong is Overlong.REFUSE:
        raise DataError(
            task,
            f"a test input of {input_tokens} tokens is longer than the {room} that fit beside its longest option",
            "raise prompt.max_length_per_example, shorten the input, or set prompt.overlong=cut_end",
        )
    return room


def check_output_fits(task: str, length: int, limits: LengthLimits) -> None:
    """Raise DataError for an output that is longer than an example may be."""
    if length > limits.example_room:
        raise DataError(
            task,
            f"an output of {length} tokens is longer than the {limits.example_room} tokens an example may take",
            "raise prompt.max_length_per_example or shorten the output",
        )


def sequence_limit(k: int, limits: LengthLimits) -> int:
    """Most tokens of a whole sequence in the released code: min(256 k, 1024), or 256 without demonstrations."""
    return min(limits.per_example * k, limits.sequence) if k else limits.per_example


def drop_left(ids: Ids, room: int) -> Ids:
    """The last `room` tokens of `ids`."""
    return ids[max(0, len(ids) - room) :]
