"""One evaluation cell (task, seed) as scoring requests, and its answers read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING

from metashot.data.task import TaskData
from metashot.engine.metrics.ranking import OptionCounts, option_scores
from metashot.engine.scoring.request import Request
from metashot.icl.prompting.bound import BoundPrompt
from metashot.icl.prompting.boundary import EncodeSpans
from metashot.icl.prompting.fitting import MORE_ROOM, Fitting, OptionGrid, Truncation, mapped, values
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.pieces import PieceWriter, Prompt
from metashot.icl.prompting.prompt import Encode, LengthLimits, Objective

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
        held: [n_test][n_options] demonstrations that stand whole in front of the real test input.
        lost: [n_test] tokens that each test input lost to the limit of an example.
    """

    requests: tuple[Request, ...]
    index: OptionGrid[int]
    texts: OptionGrid[str]
    shown: OptionGrid[int]
    demonstration_tokens: int
    kept_tokens: int
    held: tuple[tuple[int, ...], ...]
    lost: tuple[int, ...]

    @property
    def tokens_alone(self) -> int:
        """Tokens of scoring every (test example, option, null input) by itself."""
        return self.tokens_of(range(len(self.lost)))

    def tokens_of(self, rows: Sequence[int]) -> int:
        """Tokens of scoring every (option, null input) of these test examples by itself."""
        return sum(
            self.requests[place].length for layer in self.index for row in rows for place in layer[row]
        )

    def places(self, rows: Sequence[int]) -> list[int]:
        """Places in `requests` that these test examples need, in order."""
        return sorted({place for layer in self.index for row in rows for place in layer[row]})

    @property
    def shown_mean(self) -> float:
        """Demonstrations that a prompt holds whole: the mean over options, then over test examples."""
        return fmean(fmean(row) for row in self.held)

    @property
    def shown_least(self) -> int:
        """The fewest that any prompt holds."""
        return min(map(min, self.held))


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
        tuple(row for cell in cells for row in cell.held),
        tuple(tokens for cell in cells for tokens in cell.lost),
    )


def _shared_cell(data: TaskData, encode: Encode, rules: PromptRules) -> Cell:
    writer = PieceWriter(rules.prompt, encode, rules.limits)
    k = len(data.demonstrations)

    lost: list[int] = []

    def write(shown: int) -> OptionGrid[Prompt]:
        demonstrations = data.demonstrations[k - shown :]
        rows = tuple(
            tuple(tuple(writer.row(demonstrations, example, text)) for example in data.test)
            for text in (None, *rules.method.content_free, *data.unlabelled)
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
        len(rules.prompt.opening_ids(encode)),
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
        held=mapped(fitted[:1], lambda one: one.held)[0],
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


def shown_note(task: str, k: int, mean: float, least: int) -> str:
    """What to tell the user of demonstrations that were dropped.

    Args:
        task: task name.
        k: demonstrations asked for.
        mean: that a prompt holds whole, in the mean.
        least: that every prompt holds.
    """
    return (
        f"task {task!r}: the prompts hold {mean:.1f} of k={k} demonstrations (at least {least}), the first ones do not "
        f"fit; {MORE_ROOM} (prompt.overlong_shots=refuse makes this an error)"
    )


def border_notes(task: str, cell: Cell, rules: PromptRules) -> tuple[str, ...]:
    """What to tell the user of questions whose options are split from the prompt at different places.

    Direct prompts are split alike (`pieces.split_alike`). In channel prompts a token may hold the end of one label and the
    start of the input, so that the options are scored by different tokens.
    """
    if rules.prompt.spans is None or rules.prompt.frame.objective is Objective.DIRECT:
        return ()
    scored = [{cell.requests[place].target for place in row} for row in cell.index[0]]
    apart = sum(len(targets) > 1 for targets in scored)
    if not apart:
        return ()
    return (
        f"task {task!r}: in {apart} of {len(scored)} test examples the options are split from the prompt at different "
        "places, since a token reaches over the border; prompt.boundary=separate splits them alike",
    )


def differing_at_borders(data: TaskData, encode: Encode, rules: PromptRules, spans: EncodeSpans) -> int:
    """Test examples, of which a prompt has other ids when it is tokenized as a whole than in pieces."""
    encode = lru_cache(maxsize=None)(encode)
    prompt = rules.for_task(data).prompt
    separate = PieceWriter(replace(prompt, spans=None), encode, rules.limits)
    joint = PieceWriter(replace(prompt, spans=spans), encode, rules.limits)
    shown = data.neighbours or [data.demonstrations] * len(data.test)
    return sum(
        any(a.ids != b.ids for a, b in zip(separate.row(shots, one), joint.row(shots, one), strict=True))
        for shots, one in zip(shown, data.test, strict=True)
    )


def read_rows(cell: Cell, rows: Sequence[int], log_probabilities: Sequence[Tensor]) -> list[OptionScores]:
    """Sums and lengths of some test examples.

    Args:
        cell: of which `cell.places(rows)` were scored.
        rows: test examples.
        log_probabilities: one [scored tokens] tensor per place, in nats.
    """
    places = cell.places(rows)
    sums = {
        place: -float(scores.double().sum()) for place, scores in zip(places, log_probabilities, strict=True)
    }
    tokens = {place: scores.numel() for place, scores in zip(places, log_probabilities, strict=True)}
    return [
        OptionScores(
            tuple(tuple(sums[place] for place in layer[row]) for layer in cell.index),
            tuple(
                tuple(
                    OptionCounts(tokens[place], len(text), len(text.encode("utf-8")))
                    for place, text in zip(layer[row], texts[row], strict=True)
                )
                for layer, texts in zip(cell.index, cell.texts, strict=True)
            ),
        )
        for row in rows
    ]


def read_back(cell: Cell, log_probabilities: Sequence[Tensor]) -> list[OptionScores]:
    """Sums and lengths of every test example, from the engine's answer to `cell.requests`: see `read_rows`."""
    return read_rows(cell, range(len(cell.lost)), log_probabilities)
