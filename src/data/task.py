"""The nouns of the data layer: `Example` and `TaskData`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

from metashot.base.identity import NoEffect


class TaskType(StrEnum):
    """How a task is answered, which also decides its metric (docs/methods.md, metrics)."""

    CLASSIFICATION = "classification"
    """One fixed label set; scored by macro-F1."""
    MULTI_CHOICE = "multi-choice"
    """Options of their own for every example; scored by accuracy."""
    FREE_FORM = "free-form"
    """No options; only used for training, or scored by exact match where generated."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is said of a task's scoring.

    Attributes:
        task_type: how it is answered.
        metric: `macro_f1` or `accuracy` where a recipe names one; None for that of the type.
    """

    task_type: TaskType
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One record in MetaICL's layout.

    Attributes:
        task: task name, for example `glue-mnli`.
        input: text before the answer; may be empty.
        output: the gold answer.
        options: candidate answers in order; empty for free-form tasks.
        references: further answers that count as right where the answer is generated.
        rationale: the reasons for the output, which a demonstration may show; may be empty.
    """

    task: str
    input: str
    output: str
    options: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class Wording:
    """How a task's source joins the parts of a prompt (the `task` prompt format reads it).

    Attributes:
        instruction: text in front of everything.
        between: between an input and its answer.
        separator: between examples.
    """

    instruction: str = ""
    between: str = "\n"
    separator: str = "\n\n\n"


class ChosenBy(StrEnum):
    """What the scoring model has to choose before a cell is scored."""

    GLOBAL_ENTROPY = "globale"
    """The order under which its predictions on other rows are spread most evenly over the labels (Lu et al. 2022)."""
    LOCAL_ENTROPY = "locale"
    """The order under which it is least sure of each of them (Lu et al. 2022)."""
    CONDITIONAL_ENTROPY = "cone"
    """The rows behind which it finds the test input likeliest (Peng et al. 2024)."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A choice of demonstrations that is left to the scoring model.

    Attributes:
        rule: what it chooses, and by what.
        most: orders to try, or demonstrations to keep.
        probes: training rows on which orders are compared; their answers are not looked at.
    """

    rule: ChosenBy
    most: int
    probes: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskData:
    """What one evaluation cell (task, seed) needs.

    Attributes:
        task: task name.
        seed: demonstration seed.
        task_type: decides the metric, unless `metric` does.
        demonstrations: the k training examples of the seed, in prompt order.
        test: the test examples.
        neighbours: what each prompt shows instead of the shared demonstrations; as many as test examples.
        notes: what the user should know of this cell; the same sentence for all seeds where it is the same.
        wording: how the source joins the parts of a prompt, or None where it does not say.
        unlabelled: training inputs that a calibration averages over.
        labelled: training examples, with their answers, that a method learns from besides the demonstrations.
        metric: `macro_f1` or `accuracy` where the task's recipe names one.
        sampled_from: how many test rows the task has, where `test` holds a part of them; else 0.
        choice: what the model chooses of `demonstrations` or, of each row's candidates, `neighbours`; None: they stand.
        only_by_task: why no prompt of ours can hold these examples, whose source writes its own; empty where one can.
    """

    task: str
    seed: Annotated[int, NoEffect("what it draws is here")]
    task_type: TaskType
    demonstrations: tuple[Example, ...]
    test: tuple[Example, ...]
    neighbours: tuple[tuple[Example, ...], ...] = ()
    notes: Annotated[tuple[str, ...], NoEffect("what the user is told")] = ()
    wording: Wording | None = None
    unlabelled: tuple[str, ...] = ()
    labelled: tuple[Example, ...] = ()
    metric: str | None = None
    sampled_from: int = 0
    choice: ModelChoice | None = None
    only_by_task: Annotated[str, NoEffect("it is refused, or has no part in what is shown")] = ""

    @property
    def shots(self) -> int:
        """Demonstrations in each prompt, or in the longest one."""
        shown = max(map(len, self.neighbours)) if self.neighbours else len(self.demonstrations)
        if self.choice is not None and self.choice.rule is ChosenBy.CONDITIONAL_ENTROPY:
            return min(shown, self.choice.most)
        return shown

    def first(self, n: int | None) -> TaskData:
        """The same with the first `n` test examples, and what their prompts show; None keeps all."""
        return replace(self, test=self.test[:n], neighbours=self.neighbours[:n])
