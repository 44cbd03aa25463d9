"""Free-form tasks: answers are generated after the demonstrations, cut out of their texts, and graded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Annotated, Any

from metashot.base.errors import ConfigError, DataError
from metashot.base.identity import NoEffect, deciding_fields
from metashot.base.json_text import digest_of
from metashot.base.value_kinds import Positive, PositiveShare, Seed, Weight
from metashot.data.task import Example, TaskData
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.family import CellKey, Meter, Work
from metashot.engine.cells.prompts import CellPrompt
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.generation.request import (
    Generated,
    GenerationRequest,
    Generator,
    Progress,
    Sampling,
    Stopping,
)
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.extraction import Extract, Whole
from metashot.engine.metrics.generated import check_can_grade, grade, same_answer
from metashot.engine.metrics.samples import pass_at, vote
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.makers import generator_of, loads_itself
from metashot.engine.scoring.request import MakeScorer
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Ids, Objective
from metashot.icl.scoring.cell import Cell, PromptRules
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.in_context import InContextCells, dealt
from metashot.icl.scoring.preview import cell_prompt

_GRADED = tuple(metric.value for metric in Metric if metric.graded)
_BATCHES_A_PIECE = 8
"""What a kill costs: so many batches of answers at most, of each process."""
_PARTS = re.compile(r"\{(rationale|output)\}")


@dataclass(frozen=True, slots=True)
class GenerateMethod(Method):
    """Answers that are generated in place of a ranking of options."""

    metric: str = Metric.EXACT_MATCH.value
    """`exact_match`, `token_f1`, `rouge_l` or `numeric` (equal numbers), against the best of output and references."""
    extract: Extract = field(default_factory=Whole)
    """What of a text is its answer: a choice of `method/extract`, or a class of your own."""
    max_new_tokens: Positive = 32
    """Most tokens of an answer."""
    stop: tuple[str, ...] = ("\n",)
    """Strings that end an answer; a reasoning of several lines needs others than a new line."""
    temperature: Weight = 0.0
    """0 takes the most probable token; 1 samples from the model's own distribution."""
    top_p: PositiveShare = 1.0
    """Sample among the most probable tokens that together have this probability."""
    samples: Positive = 1
    """Answers to each question."""
    seed: Seed = 0
    """Of the samples."""
    pass_at: Positive | None = None
    """`k` gives pass@k; None grades the answer that most samples agree on (self-consistency)."""
    reasoning: str = ""
    """How a demonstration's answer is written with the reasons of its row: `{rationale} The answer is {output}.`"""
    think_end: str = "</think>"
    """What ends a thought: up to its last occurrence, a text is none of the answer. Empty keeps thoughts."""
    batch_size: Annotated[Positive, NoEffect("an answer is its prompt's own, up to rounding")] = 16
    """Answers that are decoded together."""

    def __post_init__(self) -> None:
        """Refuse what no answer can be generated with.

        Raises:
            ConfigError: a metric of options or one whose package is missing, the channel objective, samples that would
                all be equal, a pass@k of more than them, a reasoning without reasons; or see `Stopping`, `Sampling`.
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
        if self.sampling.greedy and self.samples > 1:
            raise ConfigError(
                "method.samples",
                f"{self.samples} greedy answers are one answer",
                "give method.temperature=0.7, or one sample",
            )
        if self.pass_at is not None and self.pass_at > self.samples:
            raise ConfigError(
                "method.pass_at",
                f"pass@{self.pass_at} needs as many samples, method.samples is {self.samples}",
                "draw more samples",
            )
        if self.pass_at is not None and not Metric(self.metric).right_or_wrong:
            raise ConfigError(
                "method.pass_at",
                f"counts answers that are right, and {self.metric!r} gives parts of a mark",
                "use method.metric=exact_match or numeric",
            )
        if self.reasoning and set(_PARTS.findall(self.reasoning)) != {"rationale", "output"}:
            raise ConfigError(
                "method.reasoning",
                f"{self.reasoning!r} does not hold both {{rationale}} and {{output}}",
                "for example '{rationale} The answer is {output}.'",
            )

    @property
    def stopping(self) -> Stopping:
        """When an answer ends; a backslash-n, which a command line writes, is a new line."""
        return Stopping(self.max_new_tokens, tuple(map(_lines, self.stop)))

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(self.temperature, self.top_p)

    @property
    def ranks_options(self) -> bool:
        """False: tasks need no options."""
        return False

    def prompted(self, data: TaskData) -> TaskData:
        """The cell with one empty option for each test example: what is in front of it is the prompt.

        Raises:
            DataError: `reasoning` is given, and a demonstration has no reasons.
        """
        return replace(
            data,
            test=tuple(replace(example, options=("",)) for example in data.test),
            demonstrations=tuple(map(self._shown, data.demonstrations)),
            neighbours=tuple(tuple(map(self._shown, row)) for row in data.neighbours),
        )

    def _shown(self, example: Example) -> Example:
        """A demonstration with the answer that is written out."""
        if not self.reasoning:
            return example
        if not example.rationale:
            raise DataError(
                example.task,
                f"a demonstration has no reasons: {example.input[:60]!r}",
                "give its row a field 'rationale', or leave method.reasoning empty",
            )
        parts = {"rationale": example.rationale, "output": example.output}
        written = _PARTS.sub(lambda match: parts[match[1]], _lines(self.reasoning))
        return replace(example, output=written, options=())

    @property
    def own_keys(self) -> list[str]:
        """The keys of generation that differ from their defaults, but for the name."""
        usual = deciding_fields(GenerateMethod(self.name))
        shared = {one.name for one in fields(Method)}
        return [
            key for key, value in deciding_fields(self).items() if key not in shared and value != usual[key]
        ]

    def answer_in(self, text: str) -> str | None:
        """The answer of a generated text, or None where it holds none."""
        said = text.rpartition(self.think_end)[2] if self.think_end else text
        return self.extract(said.strip())

    def judged(self, texts: Sequence[str], references: Sequence[str]) -> tuple[str, float]:
        """The answer to a question, and what it is worth, 0..1.

        Args:
            texts: of its samples.
            references: answers that count as right; at least one.
        """
        metric = Metric(self.metric)
        answers = [self.answer_in(text) for text in texts]
        place = vote(answers, partial(same_answer, metric))
        chosen = None if place is None else answers[place]
        if self.pass_at is None:
            return chosen or "", 0.0 if chosen is None else grade(metric, chosen, references)
        right = sum(one is not None and grade(metric, one, references) == 1 for one in answers)
        return chosen or "", pass_at(self.pass_at, len(answers), right)


def _lines(text: str) -> str:
    return text.replace("\\n", "\n")


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

    def pieces(self, work: Work, least: int) -> Sequence[Sequence[int]]:
        """Test examples in pieces of some batches: it is the answers that take time, however short the prompts are."""
        batches = work.rows * self.method.samples / self.method.batch_size
        return dealt(self.cell(work), max(least, round(batches / _BATCHES_A_PIECE)))

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[list[str]]:
        """The texts of each row's samples, as they were written."""
        data, cell = self.data(work), self.cell(work)
        found = generate(data, cell, rows, self.rules, self.method, self._generator, meter.at)
        meter.cost.tokens_generated += sum(one.tokens for row in found for one in row)
        return [[one.text for one in row] for row in found]

    @cached_property
    def _generator(self) -> Generator:
        """Made when the first rows are answered."""
        return generator_of(self._make, self.model, self.method.batch_size)

    def finish(self, work: Work, answers: Sequence[Any]) -> Sequence[FinishedCell]:
        """Grade the answers and measure the cell."""
        key, data, method = work.cells[0], self.data(work), self.method
        judged = [
            method.judged(texts, (example.output, *example.references))
            for example, texts in zip(data.test, answers, strict=True)
        ]
        predictions = tuple(
            Prediction(
                task=key.task, seed=key.seed, index=index, gold=example.output, prediction=answer, options=(), nll=(),
                sum_nll=(), n_tokens=(), n_chars=(), n_bytes=(), null_sum_nll=(), null_n_tokens=(),
                fingerprint=key.fingerprint, score=score, texts=tuple(texts),
            )
            for index, (example, texts, (answer, score)) in enumerate(zip(data.test, answers, judged, strict=True))
        )  # fmt: skip
        value = sum(score for _, score in judged) / len(judged)
        return [FinishedCell(self.result(work, Metric(method.metric), value), predictions)]

    def prompt(self, key: CellKey, result: Result) -> CellPrompt:
        """The demonstrations that every prompt held, with their reasons, and the test inputs."""
        return cell_prompt(self.method.prompted(self._data[key]), self.rules, result.shown_least)


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
) -> list[list[Generated]]:
    """The model's answers to some test examples of a cell: those of each one's samples.

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
    seeds = _seeds(data.task, prompts, method)
    wanted = [GenerationRequest(prompts[row], seed) for row in rows for seed in seeds[row]]
    found = generator.generate(wanted, method.stopping, method.sampling, on_progress)
    n = method.samples
    return [found[start : start + n] for start in range(0, len(found), n)]


def _seeds(task: str, prompts: Sequence[Ids], method: GenerateMethod) -> list[list[int]]:
    """A seed for each sample of each test example: a function of its prompt, wherever it stands; equal ones count up."""
    if method.sampling.greedy:
        return [[0]] * len(prompts)
    seen: Counter[Ids] = Counter()
    seeds: list[list[int]] = []
    for prompt in prompts:
        seen[prompt] += 1
        own = [method.seed, task, seen[prompt], prompt]
        seeds.append([int(digest_of([*own, sample])[:15], 16) for sample in range(method.samples)])
    return seeds


def prompts_of(cell: Cell, lead: str) -> list[Ids]:
    """The ids after which each test example's answer is generated.

    Args:
        cell: built with one empty option for each test example.
        lead: what stands in front of an answer. A new line belongs to the prompt; blanks belong to the answer's first
            word, which the model writes together with them.
    """
    requests = [cell.requests[row[0]] for row in cell.index[0]]
    return [request.context + (request.target if lead.strip(" ") else ()) for request in requests]
