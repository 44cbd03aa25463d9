"""The recipe format: one model per kind of recipe, checked key by key.

The keys that every kind shares stand in `data.recipes.keys`, what makes pairs of rows in `data.recipes.registry`.
"""

from __future__ import annotations

from typing import Literal

from metashot.data.recipes.keys import CommonKeys, Strict

LabelValue = bool | int | float | str


class Labelled(CommonKeys):
    """Template in, label word out."""

    kind: Literal["labelled"]
    input: str
    label: str
    labels: dict[LabelValue, str]


class TextAnswer(CommonKeys):
    """Template in, one field's text out."""

    kind: Literal["text_answer"]
    input: str
    answer: str


class FirstAnswer(CommonKeys):
    """Template in, one answer of a list out."""

    kind: Literal["first_answer"]
    input: str
    answers: str
    take: Literal["joined", "first", "sorted", "most_frequent"] = "joined"
    """joined: all, with tabs between, of which the released last step keeps the first (without that step, the
    first one); first: stops on an empty list; sorted: the same of the answers de-duplicated and sorted by code
    point; most_frequent: largest count of a {text: count} map."""


class Threshold(CommonKeys):
    """Template in; a number below or above its limit gives the label, anything between is left out."""

    kind: Literal["threshold"]
    input: str
    value: str
    below: dict[float, str]
    above: dict[float, str]
    precision: Literal["exact", "float32", "float64"] = "exact"
    """float32: the published data compared 32-bit values with 64-bit limits, so 0.6 counts as above 0.6;
    float64: a 32-bit column rounded back to six decimals."""


class Majority(CommonKeys):
    """Template in, the most frequent annotator label out; ties are left out."""

    kind: Literal["majority"]
    input: str
    votes: str
    labels: dict[LabelValue, str]


class CoinPair(CommonKeys):
    """Two sentences in an order that a seeded coin decides; the answer names the wanted one."""

    kind: Literal["coin_pair"]
    input: str
    """Template over {first} and {second}."""
    wanted: str
    other: str
    answers: tuple[str, str]


class SupportingParagraphs(CommonKeys):
    """Question with the paragraphs that support the answer, as {paragraphs}."""

    kind: Literal["supporting_paragraphs"]
    input: str
    titles: str
    sentences: str
    supporting: str
    answer: str


class Cloze(CommonKeys):
    """A relation template of which [X] is filled and [Y] is masked."""

    kind: Literal["cloze"]
    template: str
    subject: str
    answer: str


class Gold(Strict):
    """How the right choice is found; exactly one key besides `outside`."""

    label: str | None = None
    """Field with one of the choices' own labels."""
    letter: str | None = None
    """Field with a letter, A for the first choice."""
    index: str | None = None
    """Field with a number from 0."""
    number: str | None = None
    """Field with a number from 1."""
    text: str | None = None
    """Field with the answer itself."""
    outside: Literal["error", "leave_out", "stopped"] = "error"
    """A number outside the choices: an error, left out as published, or where the original stopped."""


class Choices(CommonKeys):
    """Question, choices and an optional context.

    Under `as_released: [marks]` the choices go through the text with their letters, the context after [SEP].
    """

    kind: Literal["choices"]
    input: str
    choices: str | list[str]
    """A list field, or one field per choice."""
    letters: str | None = None
    """Field with the choices' labels; A, B, C, ... when absent."""
    mark: str = " ({letter}) {choice}"
    context: str | None = None
    gold: Gold
    count: tuple[int, int | None] = (1, None)
    """Fewest and most choices; without a most, any number, or 26 under `as_released: [marks]`."""
    stops_on: str | None = None
    """The original stops when the question holds this text."""


class ShuffledChoices(CommonKeys):
    """Choices in an order shuffled with numpy seed 42, one shuffle per kept row of a split."""

    kind: Literal["shuffled_choices"]
    input: str
    choices: list[str]
    answer: str
    mark: str = " ({letter}) {choice}"
    context: str


class GroupedChoices(CommonKeys):
    """Rows that share a question become one example; the first right answer is the gold one."""

    kind: Literal["grouped_choices"]
    input: str
    group_by: str
    choice: str
    right: str
    """Field that is 1 on right answers, and 0 on others."""
    context: str
    """Template; empty for questions without a context."""
    mark: str = " ({letter}) {choice}"
    one_right: bool = False
    """Leave the other right answers out of the options, as is always done without `as_released: [marks]`; the
    published data keeps them as wrong ones."""


class WrittenChoices(CommonKeys):
    """The question text already holds `(A) ... (B) ...` (quarel)."""

    kind: Literal["written_choices"]
    input: str
    index: str
    repairs: dict[str, str]
    """Outputs that lost their first letter, and the whole word."""


class CauseEffect(CommonKeys):
    """Premise and two choices, each introduced by its role (copa)."""

    kind: Literal["cause_effect"]
    premise: str
    relation: str
    choices: tuple[str, str]
    label: str


class UnifiedqaPool(CommonKeys):
    r"""A line of UnifiedQA's text files, as training data: `question \n context TAB answer`."""

    kind: Literal["unifiedqa_pool"]
    segments: Literal["as_is", "drop_options"] = "as_is"
    answer_in_text: bool = False
    """Keep only rows whose answer stands in the text; long ones become a random window around it."""
    detokenise: bool = False
    window_joint: str = " \\t "
    """Between question and window; the original writes backslash-t here and backslash-n elsewhere."""


class UnifiedqaTarget(CommonKeys):
    r"""A line of UnifiedQA's text files, as a target: `question \n options [\n context] TAB answer`."""

    kind: Literal["unifiedqa_target"]
    tidy: bool = False
    """Squeeze the runs of blanks that the original leaves around its separators."""
