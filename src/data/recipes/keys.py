"""The keys that every recipe has: source, splits, cleaning, options, corrections."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from metashot.base.errors import suggestion
from metashot.base.identity import NoEffect
from metashot.data.sources.tables import FORMATS
from metashot.data.task import TaskType


def _known_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"no format is called {name!r}: {suggestion(name, FORMATS)}")
    return name


FormatName = Annotated[str, AfterValidator(_known_format)]
"""A name of the registry of table formats."""


class Strict(BaseModel):
    """Unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ReleasedRule(StrEnum):
    """What the released preprocessing does to a text beyond its recipe; off unless `as_released` names it."""

    LAST_STEP = "last_step"
    """Texts are stripped, a literal backslash-n becomes a blank, an output ends at its first tab."""
    MARKS = "marks"
    """Choices are written into the text behind (A), (B), ... and cut out of it again: 26 at most, and a text
    that holds such a mark itself is torn apart."""
    STOPS = "stops"
    """Rows on which the original program stopped are counted as such. Without it every row that is null, blank,
    broken, or without its answer among its options is dropped under its own reason."""


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

    @model_validator(mode="after")
    def _one_condition(self) -> DropRule:
        given = [self.equals is not None, self.above is not None, self.below is not None, self.missing]
        if sum(given) != 1:
            raise ValueError(f"{sum(given)} conditions: give one of equals, above, below and missing")
        return self


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
    files: dict[str, str | list[str]] = {}
    """Split name to file path or address, a pattern (`rows-*.parquet`), a folder, or a list of these, where the
    source is not on the hub."""
    sha256: dict[str, str] = {}
    """Split name to the checksum of its file."""
    archive: str | None = None
    """Address of a zip that holds `files`."""
    format: FormatName | None = None
    """File format, where the ending does not tell it; `lines` gives one row {"line": ...} a line."""
    delimiter: str | None = None
    quotes: Literal["strict", "none"] = "strict"
    """Whether double quotes delimit the fields of CSV and TSV files, or are part of the text."""
    encoding: str | None = None
    """Of text files; None reads UTF-8, and UTF-16 or UTF-32 where a byte-order mark says so."""
    header: list[str] = []
    """Column names of a CSV, TSV or Excel file without a header line."""
    sheet: str | None = None
    """Of an Excel file; its first one when absent."""
    field: str | None = None
    """Where the rows stand in a JSON file that is one object: `data` for {"data": [...]}."""
    rename: dict[str, str] = {}
    """Today's column name to the name that the recipe uses."""
    by_class_name: dict[str, dict[str, int]] = {}
    """Column to {class name: number in the original}: for sources that renumbered their classes."""
    note: Annotated[str, NoEffect("for readers")] = ""


class Source(Place):
    """Where the data lives today, what the original called, and where else to look."""

    original: Annotated[str, NoEffect("for readers")] = ""
    """Name in the years-old hub that MetaICL's scripts used."""
    state: Annotated[Literal["parquet", "script_only", "files", "unknown"], NoEffect("for readers")] = (
        "unknown"
    )
    """How the hub keeps it: current libraries refuse datasets that are script-only."""
    fallbacks: list[Place] = []


class OptionMarks(Strict):
    """Options are cut out of the text.

    Kinds that have their choices in fields of their own cut only under `as_released: [marks]`; else each choice
    goes through as it is.
    """

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
    about: Annotated[str, NoEffect("for readers")]
    """One line: what is asked."""
    task_type: TaskType
    ontology: Annotated[str, NoEffect("for readers")]
    """Ability asked for: sentiment, nli, paraphrase, qa, ..."""
    metric: Literal["macro_f1", "accuracy"] | None = None
    """Derived from the task type when absent."""
    source: Source
    splits: SplitPlan = SplitPlan()
    fields: dict[str, str]
    """Column to its type in words."""
    drop: list[DropRule] = []
    clean: list[CleanStep] = []
    as_released: list[ReleasedRule] = []
    """Rules of the released preprocessing that this task needs; none of them applies by itself."""
    optional: list[str] = []
    """Fields that may be null or blank: they read as an empty text. Rows with another such field are dropped."""
    options: list[str] | OptionMarks = []
    context_first: bool = False
    """Texts with `question [SEP] context` are turned round to context + question."""
    context_joint: str | None = None
    """What stands between context and question; None for a blank, or for nothing under `as_released: [marks]`."""
    notes: Annotated[list[str], NoEffect("for readers")] = []
    fixes: Annotated[list[Fix], NoEffect("those in force are applied to the other keys")] = []
    licence: Annotated[str, NoEffect("for readers")] = "see the source"
    citation: Annotated[str, NoEffect("for readers")] = ""

    def follows(self, rule: ReleasedRule) -> bool:
        """Whether this rule of the released preprocessing applies."""
        return rule in self.as_released
