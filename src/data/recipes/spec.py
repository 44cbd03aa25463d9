"""The recipe format: what a task's YAML file may hold, checked key by key.

One model per kind of recipe; `kind` picks it. The keys that every kind shares stand in `CommonKeys`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.task import TaskType

LabelValue = bool | int | str


class Strict(BaseModel):
    """Unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class CleanStep(Strict):
    """One text change; the steps of a recipe run in the order in which they are written."""

    in_: str | list[str] = Field(alias="in")
    """Field names, `choices` (each choice), `context` or `input` (the finished text of these templates)."""
    replace: str | list[str] = []
    """Texts to look for (plain, not patterns), one after the other ..."""
    with_: str = Field(default="", alias="with")
    """... and what stands there afterwards."""
    delete: list[str] = []
    """Texts to take out without a trace."""
    strip: bool = False
    """Take white space off both ends."""
    drop_prefix: str | None = None
    """Take this off the start, once."""

    @property
    def places(self) -> list[str]:
        """Where the step works."""
        return [self.in_] if isinstance(self.in_, str) else self.in_

    @property
    def wanted(self) -> list[str]:
        """What it replaces."""
        return [self.replace] if isinstance(self.replace, str) else self.replace


class DropRule(Strict):
    """Rows that the published data leaves out; exactly one condition, on one field."""

    field: str
    equals: list[Any] | None = None
    above: float | None = None
    below: float | None = None
    missing: bool = False
    """The row lacks the field altogether."""
    why: str = ""


class Cut(Strict):
    """Train and test parts of one source split, shuffled with numpy seed 42 after mapping and filtering.

    Floats are fractions of the number of entries (`int(fraction * n)`), integers are row numbers.
    """

    train: tuple[int | float, int | float] = (0.0, 0.8)
    test: tuple[int | float, int | float] = (0.8, 1.0)


class SplitPlan(Strict):
    """Which split of the source feeds which role."""

    train: str = "train"
    test: str | None = "validation"
    """None for tasks that only ever train."""
    cut: Cut | None = None
    """Set when train and test come out of one source split."""
    test_sample: float | None = None
    """Keep this fraction of the test split: shuffled with numpy seed 42, then the first int(fraction * n)."""


class Place(Strict):
    """One place where the rows of a task can be had."""

    hub: str | None = None
    """Dataset id with its namespace."""
    config: str | None = None
    revision: str | None = None
    """Branch, tag or commit; `refs/convert/parquet` is the hub's own conversion of script-only datasets."""
    files: dict[str, str] = {}
    """Split name to file path or address, where the source is not on the hub."""
    sha256: dict[str, str] = {}
    """Split name to the checksum of its file."""
    archive: str | None = None
    """Address of a zip that holds `files`."""
    format: Literal["parquet", "csv", "tsv", "jsonl", "json", "lines"] | None = None
    """File format, where the ending does not tell it; `lines` gives one row {"line": ...} a line."""
    delimiter: str | None = None
    header: list[str] = []
    """Column names of a CSV or TSV file without a header line."""
    rename: dict[str, str] = {}
    """Today's column name to the name that the recipe uses."""
    by_class_name: dict[str, dict[str, int]] = {}
    """Column to {class name: number in the original}: for sources that renumbered their classes."""
    note: str = ""


class Source(Place):
    """Where the data lives today, what the original called, and where else to look."""

    original: str = ""
    """Name in the years-old hub that MetaICL's scripts used."""
    state: Literal["parquet", "script_only", "files", "unknown"] = "unknown"
    """How the hub keeps it: current libraries refuse datasets that are script-only."""
    fallbacks: list[Place] = []


class OptionMarks(Strict):
    """Options are cut out of the built text, as in the original."""

    cut_at: Literal[" (A) ", "(A)"]
    """The first mark; the following ones go through the alphabet until one is not found."""
    or_at: Literal[" (1) "] | None = None
    """A second try, with numbers, when no letter was found."""


class Fix(Strict):
    """A correction that `data.fixes=true` applies: other values for some of the recipe's keys."""

    why: str
    set: dict[str, Any]


class CommonKeys(Strict):
    """Keys of every recipe."""

    name: str
    about: str
    """One line: what is asked."""
    task_type: TaskType
    ontology: str
    """Ability asked for: sentiment, nli, paraphrase, qa, ..."""
    metric: Literal["macro_f1", "accuracy"] | None = None
    """Derived from the task type when absent."""
    source: Source
    splits: SplitPlan = SplitPlan()
    fields: dict[str, str]
    """Column to its type in words."""
    drop: list[DropRule] = []
    clean: list[CleanStep] = []
    options: list[str] | OptionMarks = []
    context_first: bool = False
    """Texts with `question [SEP] context` are turned round to context + question."""
    context_joint: str = ""
    """What stands between context and question after turning round; the original puts nothing."""
    notes: list[str] = []
    fixes: list[Fix] = []
    licence: str = "see the source"
    citation: str = ""


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
    """joined: all, with tabs between (the last step keeps the first); first: stops on an empty list;
    sorted: de-duplicated by code point, then joined; most_frequent: largest count of a {text: count} map."""


class Threshold(CommonKeys):
    """Template in; a number below or above its limit gives the label, anything between is left out."""

    kind: Literal["threshold"]
    input: str
    value: str
    below: dict[float, str]
    above: dict[float, str]
    precision: Literal["float32", "float64"] = "float32"
    """The published data compared 32-bit values with 64-bit limits, so 0.6 counts as above 0.6."""


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
    """Question, lettered choices and, after [SEP], an optional context."""

    kind: Literal["choices"]
    input: str
    choices: str | list[str]
    """A list field, or one field per choice."""
    letters: str | None = None
    """Field with the choices' labels; A, B, C, ... when absent."""
    mark: str = " ({letter}) {choice}"
    context: str | None = None
    gold: Gold
    count: tuple[int, int] = (1, 26)
    """Fewest and most choices that the original takes."""
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
    """Field that is 1 on right answers."""
    context: str
    mark: str = " ({letter}) {choice}"
    one_right: bool = False
    """Leave the other right answers out of the options; the published data keeps them as wrong ones."""


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


RecipeSpec = Annotated[
    Labelled
    | TextAnswer
    | FirstAnswer
    | Threshold
    | Majority
    | CoinPair
    | SupportingParagraphs
    | Cloze
    | Choices
    | ShuffledChoices
    | GroupedChoices
    | WrittenChoices
    | CauseEffect
    | UnifiedqaPool
    | UnifiedqaTarget,
    Field(discriminator="kind"),
]
SPEC_MODELS: tuple[type[CommonKeys], ...] = (
    Labelled,
    TextAnswer,
    FirstAnswer,
    Threshold,
    Majority,
    CoinPair,
    SupportingParagraphs,
    Cloze,
    Choices,
    ShuffledChoices,
    GroupedChoices,
    WrittenChoices,
    CauseEffect,
    UnifiedqaPool,
    UnifiedqaTarget,
)
