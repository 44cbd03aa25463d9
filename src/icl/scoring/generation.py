"""Free-form tasks: the answer is generated after the demonstrations and graded against its references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from metashot.base.errors import ConfigError
from metashot.base.value_kinds import Positive
from metashot.data.task import Example, TaskData
from metashot.engine.generation.stopping import Stopping
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.generated import grade
from metashot.engine.models.loading import LanguageModel
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Ids, Objective
from metashot.icl.scoring.cell import Cell, PromptRules, build_cell

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
    batch_size: Positive = 16

    def __post_init__(self) -> None:
        """Refuse what no answer can be generated with.

        Raises:
            ConfigError: a metric of options, the channel objective, or see `Stopping`.
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
        _ = self.stopping

    @property
    def stopping(self) -> Stopping:
        """When an answer ends; a backslash-n, which a command line writes, is a new line."""
        return Stopping(self.max_new_tokens, tuple(word.replace("\\n", "\n") for word in self.stop))

    @property
    def scoring_identity(self) -> dict[str, object]:
        """What decides an answer and its grade."""
        return {
            **Method.scoring_identity.fget(self),  # pyright: ignore[reportOptionalCall]
            "metric": self.metric,
            "max_new_tokens": self.max_new_tokens,
            "stop": self.stopping.stop,
        }

    @property
    def ranks_options(self) -> bool:
        """False: tasks need no options."""
        return False

    def prompted(self, data: TaskData) -> TaskData:
        """The cell with one empty option for each test example: what is in front of it is the prompt."""
        return replace(data, test=tuple(replace(example, options=("",)) for example in data.test))


@dataclass(frozen=True, slots=True)
class Answers:
    """What was generated for a cell.

    Attributes:
        texts: one for each test example, without white space around it.
        lost: tokens that each test input was cut by.
    """

    texts: tuple[str, ...]
    lost: tuple[int, ...]


def prompts_of(cell: Cell, lead: str) -> list[Ids]:
    """The ids after which each test example's answer is generated.

    Args:
        cell: built with one empty option for each test example.
        lead: what stands in front of an answer. A new line belongs to the prompt; blanks belong to the answer's first
            word, which the model writes together with them.
    """
    requests = [cell.requests[row[0]] for row in cell.index[0]]
    return [request.context + (request.target if lead.strip(" ") else ()) for request in requests]


def generate_answers(
    data: TaskData,
    model: LanguageModel,
    encode: Callable[[str], Ids],
    rules: PromptRules,
    method: GenerateMethod,
    on_progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """The model's answer to each test example.

    Raises:
        ConfigError: the demonstrations leave no room for `max_new_tokens`.
    """
    room = rules.context_length - method.max_new_tokens
    if room < 1:
        raise ConfigError(
            "method.max_new_tokens",
            f"{method.max_new_tokens} is not below the model's {rules.context_length} positions",
            "lower it",
        )
    cell = build_cell(method.prompted(data), encode, replace(rules, context_length=room))
    lead = rules.for_task(data).prompt.frame.output_text("", first=not data.shots, query=True)
    from metashot.engine.generation.greedy import GreedyGenerator

    generator = GreedyGenerator(model.model, model.tokenizer, method.batch_size)
    texts = generator.generate(prompts_of(cell, lead), method.stopping, on_progress)
    return Answers(tuple(text.strip() for text in texts), tuple(cell.lost))


def grades(examples: Sequence[Example], answers: Sequence[str], metric: Metric) -> list[float]:
    """Score of every answer against its example's output and further references, 0..1."""
    return [
        grade(metric, answer, (example.output, *example.references))
        for example, answer in zip(examples, answers, strict=True)
    ]
