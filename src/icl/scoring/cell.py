"""One evaluation cell (task, seed) as scoring requests, and its answers read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from metashot.data.task import TaskData
from metashot.engine.metrics.ranking import OptionCounts, option_scores
from metashot.engine.scoring.request import Request
from metashot.icl.prompting.boundary import EncodeSpans
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.fitting import Fitting, Layers, Truncation, mapped, values
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.pieces import PieceWriter, Prompt
from metashot.icl.prompting.prompt import Encode, LengthLimits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Cell:
    """The requests of one cell; a request that several places share stands once.

    Attributes:
        requests: what the engine scores.
        index: [1 + n_null][n_test][n_options] places in `requests`; the first layer is the real test input.
        texts: [1 + n_null][n_test][n_options] target texts without separators.
        shown: [1 + n_null][n_test][n_options] demonstrations in front of the query (those that a left cut of tokens
            removes are counted; see `kept_tokens`).
        demonstration_tokens: tokens of all demonstrations before the cut.
        kept_tokens: fewest demonstration tokens that any request keeps.
        lost: [n_test] tokens that each test input lost to the limit of an example.
    """

    requests: tuple[Request, ...]
    index: Layers[int]
    texts: Layers[str]
    shown: Layers[int]
    demonstration_tokens: int
    kept_tokens: int
    lost: tuple[int, ...]

    @property
    def tokens_alone(self) -> int:
        """Tokens of scoring every (test example, option, null input) by itself."""
        return sum(self.requests[place].length for layer in self.index for row in layer for place in row)


@dataclass(frozen=True, slots=True)
class OptionScores:
    """What the model said about one test example.

    Attributes:
        sum_nll: [1 + n_null][n_options] summed target NLL in nats.
        counts: [1 + n_null][n_options] lengths of the scored targets.
    """

    sum_nll: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[OptionCounts, ...], ...]


def ranking_scores(answers: Sequence[OptionScores], method: Method) -> list[list[float]]:
    """Scores by which the options of a cell's test examples are ranked: [examples][options], lower is better."""
    return option_scores(
        [answer.sum_nll for answer in answers],
        [answer.counts for answer in answers],
        calibration=method.calibration,
        normalization=method.normalization,
    )


@dataclass(frozen=True, slots=True)
class PromptRules:
    """Everything that turns a cell's examples into ids.

    Attributes:
        method: objective, calibration and layout choice.
        prompt: the format, ready for method and model.
        truncation: how demonstrations are cut.
        limits: token limits.
        context_length: positions of the model.
    """

    method: Method
    prompt: BoundPrompt
    truncation: Truncation
    limits: LengthLimits
    context_length: int

    def for_task(self, data: TaskData) -> PromptRules:
        """The rules with the prompt in the task's own words, where the format takes them from the data."""
        return replace(self, prompt=self.prompt.for_task(data.wording))


def build_cell(data: TaskData, encode: Encode, rules: PromptRules) -> Cell:
    """Serialize, tokenize and cut one cell; test examples with neighbours of their own are cut one by one.

    Raises:
        DataError: an output longer than an example may be.
        ConfigError: the demonstrations leave no room, or nothing of a demonstration survives the cut.
    """
    encode = lru_cache(maxsize=None)(encode)
    rules = rules.for_task(data)
    if not data.neighbours:
        return _shared_cell(data, encode, rules)
    return join_cells(
        [
            _shared_cell(replace(data, demonstrations=shown, test=(test,), neighbours=()), encode, rules)
            for shown, test in zip(data.neighbours, data.test, strict=True)
        ]
    )


def join_cells(cells: Sequence[Cell]) -> Cell:
    """One cell with the test examples of all `cells`, in order; equal requests stand once."""
    requests: dict[Request, int] = {}
    index: list[list[tuple[int, ...]]] = [[] for _ in cells[0].index]
    for cell in cells:
        places = [requests.setdefault(request, len(requests)) for request in cell.requests]
        for layer, rows in zip(index, cell.index, strict=True):
            layer.extend(tuple(places[place] for place in row) for row in rows)
    n_layers = range(len(index))
    return Cell(
        tuple(requests),
        tuple(map(tuple, index)),
        tuple(tuple(row for cell in cells for row in cell.texts[layer]) for layer in n_layers),
        tuple(tuple(row for cell in cells for row in cell.shown[layer]) for layer in n_layers),
        max(cell.demonstration_tokens for cell in cells),
        min(cell.kept_tokens for cell in cells),
        tuple(tokens for cell in cells for tokens in cell.lost),
    )


def _shared_cell(data: TaskData, encode: Encode, rules: PromptRules) -> Cell:
    writer = PieceWriter(rules.prompt, encode, rules.limits)
    k = len(data.demonstrations)

    lost: list[int] = []

    def write(shown: int) -> Layers[Prompt]:
        demonstrations = data.demonstrations[k - shown :]
        rows = tuple(
            tuple(tuple(writer.row(demonstrations, example, text)) for example in data.test)
            for text in (None, *rules.method.null_inputs, *data.unlabelled)
        )
        lost[:] = [row[0].lost for row in rows[0]]
        return rows

    frame = rules.prompt.frame
    fitting = Fitting(
        data.task,
        k,
        rules.limits,
        rules.context_length,
        rules.truncation,
        frame.keeps_whole,
        len(encode(frame.opening)),
        rules.prompt.begin,
    )
    fitted = fitting.fit(write)
    requests: dict[Request, int] = {}
    index = mapped(fitted, lambda one: requests.setdefault(one.request, len(requests)))
    return Cell(
        requests=tuple(requests),
        index=index,
        texts=mapped(fitted, lambda one: one.text),
        shown=mapped(fitted, lambda one: one.shown),
        demonstration_tokens=sum(map(len, writer.shown_ids(data.demonstrations))),
        kept_tokens=min(values(fitted, lambda one: one.kept_tokens)),
        lost=tuple(lost),
    )


def cut_note(task: str, cut: int, n: int, tokens: int, limits: LengthLimits) -> str:
    """What to tell the user of test inputs that were cut.

    Args:
        task: task name.
        cut: test inputs that were cut.
        n: test inputs.
        tokens: what they lost together.
        limits: the limits that were applied.
    """
    return (
        f"task {task!r}: {cut} of {n} test inputs are longer than an example may be and were cut "
        f"({limits.overlong.value}) by {tokens:,} tokens together; raise prompt.max_length_per_example (now "
        f"{limits.per_example}), or choose prompt.overlong"
    )


def differing_at_borders(data: TaskData, encode: Encode, rules: PromptRules, spans: EncodeSpans) -> int:
    """Test examples, of which a prompt has other ids when it is tokenized as a whole than in pieces."""
    encode = lru_cache(maxsize=None)(encode)
    prompt = rules.for_task(data).prompt
    frame, bos = prompt.frame, prompt.bos
    separate = PieceWriter(BoundPrompt(frame, bos), encode, rules.limits)
    joint = PieceWriter(BoundPrompt(frame, bos, spans), encode, rules.limits)
    shown = data.neighbours or [data.demonstrations] * len(data.test)
    return sum(
        any(a.ids != b.ids for a, b in zip(separate.row(shots, one), joint.row(shots, one), strict=True))
        for shots, one in zip(shown, data.test, strict=False)
    )


def read_back(cell: Cell, log_probabilities: Sequence[Tensor]) -> list[OptionScores]:
    """Sums and lengths per test example, from the engine's answer to `cell.requests`.

    Args:
        cell: as scored.
        log_probabilities: one [scored tokens] tensor per request, in nats.
    """
    sums = [-float(scores.double().sum()) for scores in log_probabilities]
    tokens = [scores.numel() for scores in log_probabilities]
    answers: list[OptionScores] = []
    for example in range(len(cell.index[0])):
        places = [layer[example] for layer in cell.index]
        answers.append(
            OptionScores(
                tuple(tuple(sums[place] for place in row) for row in places),
                tuple(
                    tuple(
                        OptionCounts(tokens[place], len(text), len(text.encode("utf-8")))
                        for place, text in zip(row, layer[example], strict=True)
                    )
                    for row, layer in zip(places, cell.texts, strict=True)
                ),
            )
        )
    return answers
