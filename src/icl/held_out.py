"""Quick evaluation while training: mean metric over a few held-out target tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from metashot.data.pool_cells import PoolCells
from metashot.data.source import TaskSource
from metashot.data.task import TaskData
from metashot.data.value_kinds import Count, Name, Positive, Seed
from metashot.engine.metrics.classification import accuracy, metric_of, score
from metashot.engine.metrics.ranking import best_option
from metashot.engine.models.loading import LanguageModel
from metashot.engine.scoring import Scorer
from metashot.engine.training.ranks import rank, sum_over_ranks, world_size
from metashot.icl.cell import PromptRules, build_cell, ranking_scores, read_back
from metashot.icl.piece_cache import batch_encoder
from metashot.icl.prompt import Ids

MakeScorer = Callable[[PreTrainedModel], Scorer]


@dataclass(frozen=True, slots=True)
class HeldOutConfig:
    """`trainer.held_out` keys.

    Attributes:
        tasks: target tasks; empty takes all targets of the setting.
        k: demonstrations.
        seeds: demonstration seeds.
        test_examples: at most so many test examples of each task.
        from_pool: `tasks` are training tasks that are not trained on; demonstrations and test examples come from
            their pools.
    """

    tasks: tuple[Name, ...] = ()
    k: Count = 16
    seeds: tuple[Seed, ...] = (100,)
    test_examples: Positive = 50
    from_pool: bool = False


def load_held_out(
    source: TaskSource, tasks: Sequence[str], settings: HeldOutConfig, k: int
) -> list[TaskData]:
    """The cells (task, seed) to evaluate, cut to `test_examples`."""
    if settings.from_pool:
        source = PoolCells(source, settings.test_examples)
    cells = [source.load(task, k=k, seed=seed) for task in tasks for seed in settings.seeds]
    return [replace(cell, test=cell.test[: settings.test_examples]) for cell in cells]


def held_out_metrics(
    language_model: LanguageModel, cells: Sequence[TaskData], rules: PromptRules, make_scorer: MakeScorer
) -> dict[str, float]:
    """`accuracy` and `metric` (macro-F1 or accuracy, as MetaICL reports it), means over the cells.

    Ranks share the cells; every rank returns the same numbers.
    """
    scorer = make_scorer(language_model.model)
    encode = _encode_one(language_model)
    sums = [0.0, 0.0, 0.0]
    for cell in cells[rank() :: world_size()]:
        gold, predicted = predict(cell, scorer, encode, rules)
        value = score(metric_of(cell.task_type), gold, predicted)
        sums = [sums[0] + accuracy(gold, predicted), sums[1] + value, sums[2] + 1.0]
    total_accuracy, total_metric, count = sum_over_ranks(sums, language_model.model.device)
    return {"accuracy": total_accuracy / max(1.0, count), "metric": total_metric / max(1.0, count)}


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
