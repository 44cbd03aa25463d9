"""One evaluation cell (task, seed) as scoring requests, and its answers read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from torch import Tensor

from metashot.data.task import Example, TaskData
from metashot.engine.errors import ConfigError
from metashot.engine.metrics.ranking import OptionCounts
from metashot.engine.scoring.request import Request
from metashot.icl.methods import Method
from metashot.icl.prompt import (
    Encode,
    Ids,
    Layout,
    LengthLimits,
    Objective,
    cut_query_input,
    demonstration_ids,
    drop_left,
    input_text,
    output_text,
    sequence_limit,
)

_T = TypeVar("_T")
Layers = tuple[tuple[tuple[_T, ...], ...], ...]


class Truncation(StrEnum):
    """What happens to demonstrations that do not fit."""

    SHARED = "shared"
    """Cut once per cell, so that the longest test example fits and all see the same demonstrations."""
    PER_OPTION = "per_option"
    """Released code: every (test example, option) drops its own left part."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One (test example, option) before truncation.

    Attributes:
        head: the query's first piece.
        target: its second piece, the scored one.
        text: the target's text without separators.
    """

    head: Ids
    target: Ids
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """The requests of one cell; a request that several places share stands once.

    Attributes:
        requests: what the engine scores.
        index: [1 + n_null][n_test][n_options] places in `requests`; the first layer is the real test input.
        texts: [1 + n_null][n_test][n_options] target texts without separators.
        head_tokens: [1 + n_null][n_test][n_options] tokens of the query's first piece.
        demonstration_tokens: tokens of all demonstrations before the cut.
        kept_tokens: fewest demonstration tokens that any request keeps.
    """

    requests: tuple[Request, ...]
    index: Layers[int]
    texts: Layers[str]
    head_tokens: Layers[int]
    demonstration_tokens: int
    kept_tokens: int


@dataclass(frozen=True, slots=True)
class OptionScores:
    """What the model said about one test example.

    Attributes:
        sum_nll: [1 + n_null][n_options] summed target NLL in nats.
        counts: [1 + n_null][n_options] lengths of the scored targets.
    """

    sum_nll: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[OptionCounts, ...], ...]


@dataclass(frozen=True, slots=True)
class PromptRules:
    """Everything that turns a cell's examples into ids.

    Attributes:
        method: objective, calibration and layout choice.
        layout: separators, already chosen for the model.
        truncation: how demonstrations are cut.
        limits: token limits.
        context_length: positions of the model.
    """

    method: Method
    layout: Layout
    truncation: Truncation
    limits: LengthLimits
    context_length: int


def build_cell(data: TaskData, encode: Encode, rules: PromptRules) -> Cell:
    """Serialize, tokenize and cut one cell; test examples with neighbours of their own are cut one by one.

    Raises:
        DataError: an output longer than an example may be.
        ConfigError: the demonstrations leave no room, or nothing of a demonstration survives the cut.
    """
    encode = lru_cache(maxsize=None)(encode)
    if not data.neighbours:
        return _shared_cell(data, encode, rules)
    return join_cells(
        [
            _shared_cell(TaskData(data.task, data.seed, data.task_type, shown, (test,)), encode, rules)
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
        tuple(tuple(row for cell in cells for row in cell.head_tokens[layer]) for layer in n_layers),
        max(cell.demonstration_tokens for cell in cells),
        min(cell.kept_tokens for cell in cells),
    )


def _shared_cell(data: TaskData, encode: Encode, rules: PromptRules) -> Cell:
    objective = rules.method.objective
    demonstrations = demonstration_ids(
        data.demonstrations,
        encode,
        objective=objective,
        layout=rules.layout,
        limits=rules.limits,
        no_label=shows_no_label(data.demonstrations),
    )
    first = not demonstrations
    queries = [
        [_query(example, encode, rules, first=first, replace=text) for example in data.test]
        for text in (None, *rules.method.null_inputs)
    ]
    fit = _fitter(data.task, demonstrations, queries, rules)
    requests: dict[Request, int] = {}
    kept: list[int] = []
    index: list[list[tuple[int, ...]]] = []
    for layer in queries:
        fitted = [[(fit(prompt), len(prompt.head)) for prompt in row] for row in layer]
        kept.extend(len(request.context) - head for row in fitted for request, head in row)
        index.append(
            [tuple(requests.setdefault(request, len(requests)) for request, _ in row) for row in fitted]
        )
    texts = tuple(tuple(tuple(prompt.text for prompt in row) for row in layer) for layer in queries)
    heads = tuple(tuple(tuple(len(prompt.head) for prompt in row) for row in layer) for layer in queries)
    total = sum(map(len, demonstrations))
    return Cell(tuple(requests), tuple(map(tuple, index)), texts, heads, total, max(0, min(kept)))


def shows_no_label(demonstrations: Sequence[Example]) -> bool:
    """Whether labels are left out: every output is empty (the released code looks at the options likewise)."""
    return bool(demonstrations) and not any(example.output for example in demonstrations)


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


def _query(
    example: Example, encode: Encode, rules: PromptRules, *, first: bool, replace: str | None
) -> list[Prompt]:
    objective = rules.method.objective
    text = example.input if replace is None else replace
    input_ids = encode(input_text(text, objective=objective, layout=rules.layout, first=first))
    options = [
        encode(output_text(option, objective=objective, layout=rules.layout, first=first))
        for option in example.options
    ]
    input_ids = cut_query_input(example.task, input_ids, max(map(len, options)), rules.limits)
    if objective is Objective.DIRECT:
        return [Prompt(input_ids, ids, option) for ids, option in zip(options, example.options, strict=True)]
    return [Prompt(ids, input_ids, text) for ids in options]


def _fitter(
    task: str,
    demonstrations: Sequence[Ids],
    queries: Sequence[Sequence[Sequence[Prompt]]],
    rules: PromptRules,
) -> Callable[[Prompt], Request]:
    """The function that joins demonstrations and query under the truncation rule."""
    k = len(demonstrations)
    joined: Ids = tuple(token for piece in demonstrations for token in piece)
    longest = max(len(p.head) + len(p.target) for layer in queries for row in layer for p in row)
    limit = min(rules.limits.sequence if k else rules.limits.per_example, rules.context_length)
    if longest > limit:
        raise ConfigError(
            "model",
            f"task {task!r} has a test example of {longest} tokens, the sequence limit is {limit}",
            "lower prompt.max_length_per_example, raise prompt.max_length, or use a model with a longer context",
        )
    if rules.truncation is Truncation.PER_OPTION and k:
        released = min(sequence_limit(k, rules.limits), rules.context_length)
        return lambda p: Request(drop_left(joined + p.head, released - len(p.target)), p.target)
    room = limit - longest
    if k and min(len(joined), room) < min(map(len, demonstrations)):
        raise ConfigError(
            "k",
            f"k={k} is too large for the context: task {task!r} has {len(joined)} tokens of demonstrations, and the "
            f"limit of {limit} less the longest test example ({longest}) leaves {room}, not one whole demonstration",
            "lower k, raise prompt.max_length, or use a model with a longer context",
        )
    return lambda p: Request(drop_left(joined, room) + p.head, p.target)
