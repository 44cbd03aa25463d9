"""Quick evaluation while training: how a few held-out tasks are answered, and whether all answers are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from metashot.data.task import TaskData
from metashot.data.tasks.pool_cells import PoolCells
from metashot.data.tasks.source import TaskSource
from metashot.engine.metrics.classification import accuracy, metric_of, score
from metashot.engine.metrics.ranking import best_option
from metashot.engine.scoring.request import MakeScorer, Scorer
from metashot.engine.training.ranks import rank, sum_over_ranks, world_size
from metashot.icl.learning.training_settings import HeldOutConfig
from metashot.icl.learning.writing.piece_cache import batch_encoder
from metashot.icl.prompting.calibration_inputs import with_calibration_inputs
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Ids
from metashot.icl.scoring.cell import PromptRules, build_cell, ranking_scores, read_back

if TYPE_CHECKING:
    from metashot.engine.models.loading import LanguageModel


def load_held_out(
    source: TaskSource, tasks: Sequence[str], settings: HeldOutConfig, method: Method
) -> list[TaskData]:
    """The cells (task, seed) to evaluate, cut to `test_examples`."""
    k = method.shots(settings.k)
    if settings.from_pool:
        source = PoolCells(source, settings.test_examples)
    cells = [
        with_calibration_inputs(source.load(task, k=k, seed=seed), method, source, k)
        for task in tasks
        for seed in settings.seeds
    ]
    return [cell.first(settings.test_examples) for cell in cells]


def held_out_metrics(
    language_model: LanguageModel,
    cells: Sequence[TaskData],
    rules: PromptRules,
    make_scorer: MakeScorer,
    *,
    shared: bool = True,
) -> dict[str, float]:
    """Means over the cells, and what lies behind them; every rank returns the same numbers.

    Args:
        language_model: the model as it is now.
        cells: what to answer.
        rules: how.
        make_scorer: with what.
        shared: ranks share the cells; False where a forward pass needs all of them.

    Returns:
        `accuracy`, `metric` (macro-F1 or accuracy, as MetaICL reports it) and `most_frequent` (how large a share of
        a cell's answers its most frequent answer has), each also by task as `metric/<task>`; and the distribution of
        answers, `predicted/<task>/<label>`. The last two leave out cells without one fixed label set.
    """
    scorer = make_scorer(language_model.model)
    encode = _encode_one(language_model)
    sums = dict.fromkeys(_keys(cells), 0.0)
    for cell in cells[rank() :: world_size()] if shared else cells:
        gold, predicted = predict(cell, scorer, encode, rules)
        for key, value in _values(cell, gold, predicted):
            sums[key] += value
    if shared:
        device = language_model.model.device
        sums = dict(zip(sums, sum_over_ranks(list(sums.values()), device), strict=True))
    counts = Counter(key for cell in cells for key in _cell_keys(cell))
    return {key: value / counts[key] for key, value in sums.items()}


COLLAPSED = 0.95
"""Share of one answer from which a task counts as collapsed."""


def collapsed_tasks(metrics: Mapping[str, float]) -> list[str]:
    """Tasks of `held_out_metrics` that get one answer for (nearly) every input, each with that answer and its share."""
    found = []
    for key, share in metrics.items():
        kind, _, rest = key.partition("/")
        if kind == "predicted" and share >= COLLAPSED:
            task, _, label = rest.partition("/")
            found.append(f"{task}: {label!r} for {100 * share:.0f} %")
    return found


def _keys(cells: Sequence[TaskData]) -> list[str]:
    return list(dict.fromkeys(key for cell in cells for key in _cell_keys(cell)))


def _cell_keys(cell: TaskData) -> list[str]:
    names = ["accuracy", "metric", *(["most_frequent"] if _labels(cell) else [])]
    by_task = [f"{name}/{cell.task}" for name in names]
    return [*names, *by_task, *(f"predicted/{cell.task}/{label}" for label in _labels(cell))]


def _labels(cell: TaskData) -> tuple[str, ...]:
    """The label set of a cell; empty where its options differ from example to example, or nothing can be told apart."""
    label_sets = {frozenset(example.options) for example in cell.test}
    fixed = len(label_sets) == 1 and len({example.output for example in cell.test}) > 1
    return tuple(sorted(label_sets.pop())) if fixed else ()


def _values(cell: TaskData, gold: list[str], predicted: list[str]) -> Iterator[tuple[str, float]]:
    found = {
        "accuracy": accuracy(gold, predicted),
        "metric": score(metric_of(cell.task_type, cell.metric), gold, predicted),
    }
    if labels := _labels(cell):
        shares = {label: predicted.count(label) / len(predicted) for label in labels}
        found["most_frequent"] = max(shares.values())
        yield from ((f"predicted/{cell.task}/{label}", share) for label, share in shares.items())
    for name, value in found.items():
        yield name, value
        yield f"{name}/{cell.task}", value


def predict(
    data: TaskData, scorer: Scorer, encode: Callable[[str], Ids], rules: PromptRules
) -> tuple[list[str], list[str]]:
    """Gold and predicted answers of one cell."""
    cell = build_cell(data, encode, rules)
    answers = read_back(cell, scorer.score(cell.requests))
    predicted = [
        example.options[best_option(scores)]
        for scores, example in zip(ranking_scores(answers, rules.method), data.test, strict=True)
    ]
    return [example.output for example in data.test], predicted


def _encode_one(language_model: LanguageModel) -> Callable[[str], Ids]:
    encode = batch_encoder(language_model.tokenizer)
    return lambda text: tuple(encode([text])[0])
