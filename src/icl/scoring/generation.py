"""Free-form tasks: the answer is generated after the demonstrations and graded against its references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

from metashot.base.errors import ConfigError
from metashot.base.identity import NoEffect
from metashot.base.value_kinds import Positive
from metashot.data.task import Example, TaskData
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.family import Meter, Work
from metashot.engine.cells.results import FinishedCell, Prediction
from metashot.engine.generation.request import GenerationRequest, Generator, Progress, Stopping
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.generated import check_can_grade, grade
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.makers import generator_of, loads_itself
from metashot.engine.scoring.request import MakeScorer
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Ids, Objective
from metashot.icl.scoring.cell import Cell, PromptRules
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.in_context import InContextCells

_GRADED = tuple(metric.value for metric in Metric if metric.graded)


@dataclass(frozen=True, slots=True)
class GenerateMethod(Method):
    """Greedy decoding in place of a ranking of options.

    Attributes:
        metric: `exact_match`, `token_f1` or `rouge_l`.
        max_new_tokens: most tokens of an answer.
        stop: strings that end an answer.
        batch_size: prompts that are decoded together.
    """

    metric: str = Metric.EXACT_MATCH.value
    max_new_tokens: Positive = 32
    stop: tuple[str, ...] = ("\n",)
    batch_size: Annotated[Positive, NoEffect("an answer is its prompt's own, up to rounding")] = 16

    def __post_init__(self) -> None:
        """Refuse what no answer can be generated with.

        Raises:
            ConfigError: a metric of options or one whose package is missing, the channel objective, or see `Stopping`.
        """
        Method.__post_init__(self)
        if self.metric not in _GRADED:
            raise ConfigError(
                "method.metric",
                f"{self.metric!r} does not grade generated answers",
                f"one of: {', '.join(_GRADED)}",
            )
        if self.objective is Objective.CHANNEL:
            raise ConfigError("method.objective", "'channel' scores inputs", "use method.objective=direct")
        check_can_grade(Metric(self.metric))
        _ = self.stopping

    @property
    def stopping(self) -> Stopping:
        """When an answer ends; a backslash-n, which a command line writes, is a new line."""
        return Stopping(self.max_new_tokens, tuple(word.replace("\\n", "\n") for word in self.stop))

    @property
    def ranks_options(self) -> bool:
        """False: tasks need no options."""
        return False

    def prompted(self, data: TaskData) -> TaskData:
        """The cell with one empty option for each test example: what is in front of it is the prompt."""
        return replace(data, test=tuple(replace(example, options=("",)) for example in data.test))


class GeneratedCells(InContextCells):
    """Cells whose test examples are answered in the model's own words.

    Args:
        settings: what to evaluate.
        source: the tasks' data.
        model: loaded when the first rows have to be answered.
        make_scorer: an engine of its own that generates; any other choice leaves it to the model itself.
    """

    def __init__(
        self,
        settings: EvaluateSettings,
        source: TaskSource,
        model: LazyLanguageModel,
        make_scorer: MakeScorer,
    ) -> None:
        super().__init__(settings, source, model)
        self._make = make_scorer
        # The choices that score with the loaded model say nothing of what it writes.
        self.make_scorer = make_scorer if loads_itself(make_scorer) else None

    @cached_property
    def method(self) -> GenerateMethod:
        """The settings' method."""
        method = self.settings.method
        assert isinstance(method, GenerateMethod)
        return method

    @cached_property
    def prompt_rules(self) -> PromptRules:
        """The rules, with room for the answer."""
        return with_room(self.rules, self.method)

    def build(self, data: TaskData) -> Cell:
        """The prompts, each with one empty option."""
        return super().build(self.method.prompted(data))

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[str]:
        """The answer to each row, without white space around it."""
        data = self.data(work)
        return generate(data, self.cell(work), rows, self.rules, self.method, self._generator, meter.at)

    @cached_property
    def _generator(self) -> Generator:
        """Made when the first rows are answered."""
        return generator_of(self._make, self.model, self.method.batch_size)

    def finish(self, work: Work, answers: Sequence[str]) -> Sequence[FinishedCell]:
        """Grade the answers and measure the cell."""
        key, data, metric = work.cells[0], self.data(work), Metric(self.method.metric)
        scores = grades(data.test, answers, metric)
        predictions = tuple(
            Prediction(
                task=key.task, seed=key.seed, index=index, gold=example.output, prediction=answer, options=(), nll=(),
                sum_nll=(), n_tokens=(), n_chars=(), n_bytes=(), null_sum_nll=(), null_n_tokens=(),
                fingerprint=key.fingerprint, score=one,
            )
            for index, (example, answer, one) in enumerate(zip(data.test, answers, scores, strict=True))
        )  # fmt: skip
        return [FinishedCell(self.result(work, metric, sum(scores) / len(scores)), predictions)]


def with_room(rules: PromptRules, method: GenerateMethod) -> PromptRules:
    """The rules of prompts that leave room for an answer.

    Raises:
        ConfigError: `max_new_tokens` leaves none for a prompt.
    """
    room = rules.context_length - method.max_new_tokens
    if room < 1:
        raise ConfigError(
            "method.max_new_tokens",
            f"{method.max_new_tokens} is not below the model's {rules.context_length} positions",
            "lower it",
        )
    return replace(rules, context_length=room)


def generate(
    data: TaskData,
    cell: Cell,
    rows: Sequence[int],
    rules: PromptRules,
    method: GenerateMethod,
    generator: Generator,
    on_progress: Progress | None = None,
) -> list[str]:
    """The model's answers to some test examples of a cell, without white space around them.

    Args:
        data: the cell's examples.
        cell: its prompts, each with one empty option.
        rows: which test examples.
        rules: by which the prompts were written.
        method: how answers end.
        generator: of the model.
        on_progress: told of answers.
    """
    lead = rules.for_task(data).prompt.frame.output_text("", first=not data.shots, query=True)
    prompts = prompts_of(cell, lead)
    wanted = [GenerationRequest(prompts[row]) for row in rows]
    found = generator.generate(wanted, method.stopping, on_progress=on_progress)
    return [answer.text.strip() for answer in found]


def prompts_of(cell: Cell, lead: str) -> list[Ids]:
    """The ids after which each test example's answer is generated.

    Args:
        cell: built with one empty option for each test example.
        lead: what stands in front of an answer. A new line belongs to the prompt; blanks belong to the answer's first
            word, which the model writes together with them.
    """
    requests = [cell.requests[row[0]] for row in cell.index[0]]
    return [request.context + (request.target if lead.strip(" ") else ()) for request in requests]


def grades(examples: Sequence[Example], answers: Sequence[str], metric: Metric) -> list[float]:
    """Score of every answer against its example's output and further references, 0..1."""
    return [
        grade(metric, answer, (example.output, *example.references))
        for example, answer in zip(examples, answers, strict=True)
    ]
