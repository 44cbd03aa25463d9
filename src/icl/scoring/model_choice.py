"""What the scoring model itself chooses of the demonstrations, before a cell is scored.

Their order (Lu et al. 2022): each order's predictions on training rows, whose answers are not looked at, are held
against each other. GlobalE of an order is the entropy of the share of rows that each option is predicted for; LocalE is
the mean entropy of the probabilities of a row's options. The highest is taken, of equal ones the first. Lu et al. have
the model write the rows; here they are rows of the training set. The rows themselves (Peng et al. 2024): of each test
example's candidates those behind which, one at a time, the model gives the test input the highest probability a token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from metashot.base.errors import ConfigError
from metashot.data.task import ChosenBy, Example, ModelChoice, TaskData, TaskType
from metashot.data.tasks.selection import reorder
from metashot.engine.metrics.classification import Floats
from metashot.engine.scoring.request import Request
from metashot.icl.prompting.prompt import Encode
from metashot.icl.scoring.cell import PromptRules, build_cell, ranking_scores, read_rows
from metashot.icl.scoring.written_inputs import writing_prompt

if TYPE_CHECKING:
    from torch import Tensor

Score = Callable[[Sequence[Request]], "list[Tensor]"]
"""Requests to log-probabilities [scored tokens] of each, in nats."""


def chosen(data: TaskData, rules: PromptRules, score: Score, encode: Encode) -> TaskData:
    """The cell with the choice made.

    Raises:
        ConfigError: GlobalE of a task whose rows have options of their own; a scorer that gives NaN.
    """
    choice = data.choice
    if choice is None:
        return data
    if choice.rule is ChosenBy.CONDITIONAL_ENTROPY:
        return _likeliest_input(data, choice, rules, score, encode)
    if choice.rule is ChosenBy.GLOBAL_ENTROPY and data.task_type is not TaskType.CLASSIFICATION:
        raise ConfigError(
            "selection.order",
            f"globale compares predictions over one set of labels, and task {data.task!r} is {data.task_type.value}",
            "use selection.order=locale",
        )
    orders = [reorder(data.demonstrations, number) for number in range(choice.most)]
    entropies = [
        entropy_of(choice.rule, *_predictions(data, order, choice.probes, rules, score, encode))
        for order in orders
    ]
    return replace(data, demonstrations=orders[int(np.argmax(entropies))], choice=None)


def first_choice(data: TaskData) -> TaskData:
    """The cell with what stands first of a choice, for counting without weights."""
    choice = data.choice
    if choice is None or choice.rule is not ChosenBy.CONDITIONAL_ENTROPY:
        return replace(data, choice=None)
    return replace(data, neighbours=tuple(row[-choice.most :] for row in data.neighbours), choice=None)


def entropy_of(rule: ChosenBy, predicted: Sequence[str], probabilities: Sequence[Floats]) -> float:
    """GlobalE or LocalE of one order, in nats.

    Args:
        rule: which of the two.
        predicted: each row's option of the highest probability.
        probabilities: of each row's options, summing to 1.
    """
    if rule is ChosenBy.GLOBAL_ENTROPY:
        return _entropy(np.array(list(Counter(predicted).values())) / len(predicted))
    return float(np.mean([_entropy(row) for row in probabilities]))


def _entropy(shares: Floats) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())


def _predictions(
    data: TaskData,
    order: tuple[Example, ...],
    probes: tuple[Example, ...],
    rules: PromptRules,
    score: Score,
    encode: Encode,
) -> tuple[list[str], list[Floats]]:
    """The predicted option and the options' probabilities of each probe behind the demonstrations in this order."""
    cell = build_cell(replace(data, demonstrations=order, test=probes, choice=None), encode, rules)
    rows = range(len(probes))
    places = cell.places(rows)
    answers = read_rows(cell, rows, score([cell.requests[place] for place in places]))
    shares: list[Floats] = []
    for scores in ranking_scores(answers, rules.method):
        weights = np.exp(np.min(scores) - np.array(scores))
        shares.append(weights / weights.sum())
    predicted = [probe.options[int(row.argmax())] for probe, row in zip(probes, shares, strict=True)]
    return predicted, shares


def _likeliest_input(
    data: TaskData, choice: ModelChoice, rules: PromptRules, score: Score, encode: Encode
) -> TaskData:
    contexts = {
        candidate: writing_prompt(
            replace(data, demonstrations=(candidate,), neighbours=(), choice=None), rules, encode
        )[0]
        for row in data.neighbours
        for candidate in row
    }
    inputs = [
        rules.prompt.encoder(encode)(example.input)[: rules.limits.example_room] for example in data.test
    ]
    room = rules.context_length
    requests = [
        Request(contexts[candidate][-max(1, room - len(ids)) :], tuple(ids))
        for row, ids in zip(data.neighbours, inputs, strict=True)
        for candidate in row
    ]
    scores = iter(score(requests))
    kept: list[tuple[Example, ...]] = []
    for row in data.neighbours:
        likelihood = [float(next(scores).double().mean()) for _ in row]
        best_last = sorted(range(len(row)), key=lambda place, found=likelihood: found[place])[-choice.most :]
        kept.append(tuple(row[place] for place in best_last))
    return replace(data, neighbours=tuple(kept), choice=None)
