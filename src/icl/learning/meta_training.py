"""MetaICL meta-training: many tasks, k demonstrations and a query each, loss on the query's target.

With k = 0 this is the multi-task zero-shot baseline; with the channel objective input and label change places.
Source: MetaICL paper, section 3; released code (docs/methods.md, loss and meta-training).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from metashot.base.errors import ConfigError
from metashot.data.rows.episodes import check_pools
from metashot.data.task import Example
from metashot.data.tasks.source import TaskSource
from metashot.data.tasks.synthetic import SyntheticSource
from metashot.engine.models.loading import LanguageModel
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import MakeScorer
from metashot.engine.training.checkpoint import CheckpointStore
from metashot.engine.training.learner import MetricSink
from metashot.engine.training.loop import TrainingOutcome, run_training
from metashot.engine.training.lr_range import LrRange, LrRangeConfig, lr_range_test
from metashot.engine.training.randomness import seed_everything
from metashot.engine.training.ranks import join_ranks, rank, world_size
from metashot.icl.learning.batches.attention_mask import check_rows_of_several
from metashot.icl.learning.meta_learner import MetaLearner
from metashot.icl.learning.training_settings import (
    Batching,
    EpisodeConfig,
    MetaTrainSettings,
    run_identity,
    trained_for,
)
from metashot.icl.learning.writing.sequence_labels import DemonstrationLabels
from metashot.icl.learning.writing.sequences import LossOn


def train(
    settings: MetaTrainSettings,
    language_model: LanguageModel,
    source: TaskSource,
    train_tasks: Sequence[str],
    target_tasks: Sequence[str],
    output: Path,
    sink: MetricSink | None = None,
    make_scorer: MakeScorer = PrefixScorer,
) -> TrainingOutcome:
    """Meta-train `language_model` in place; checkpoints go to `<output>/checkpoints`.

    Args:
        settings: how.
        language_model: float32 weights on their device.
        source: training pools and held-out cells.
        train_tasks: tasks to train on (`data.episodes.check_disjoint` is the caller's, who knows the setting).
        target_tasks: tasks for evaluation while training.
        output: the run's folder.
        sink: where metrics go.
        make_scorer: scores held-out cells.

    Raises:
        ConfigError, DataError, CheckpointError: see `run_training`, `check_pools` and `TrainableModel`.
        DivergedError: the loss is NaN or infinite.
    """
    pools = _prepared(settings, language_model, source, train_tasks)
    learner = MetaLearner(settings, language_model, pools, source, target_tasks, make_scorer)
    store = CheckpointStore(
        output / "checkpoints",
        identity=run_identity(settings, language_model, pools),
        method=trained_for(settings, language_model.tokenizer),
        keep_last=settings.keep_last,
        keep_best=settings.keep_best,
    )
    return run_training(learner, settings.loop, store, sink)


def find_learning_rate(
    settings: MetaTrainSettings,
    language_model: LanguageModel,
    source: TaskSource,
    train_tasks: Sequence[str],
    config: LrRangeConfig,
) -> LrRange:
    """The range test on the sequences that `train` would see first; `language_model` is of no use afterwards.

    Raises:
        ConfigError, DataError, DivergedError: as `train`.
    """
    loop = replace(settings.loop, steps=config.steps, evaluate_every=0)
    settings = replace(settings, loop=loop)
    pools = _prepared(settings, language_model, source, train_tasks)
    learner = MetaLearner(settings, language_model, pools, source, [], PrefixScorer)
    return lr_range_test(learner, learner.set_learning_rate, config)


def _prepared(
    settings: MetaTrainSettings, language_model: LanguageModel, source: TaskSource, train_tasks: Sequence[str]
) -> dict[str, list[Example]]:
    """Ranks joined, settings checked, randomness seeded; the pools to train on."""
    join_ranks()
    _check(settings)
    check_held_out(settings, train_tasks)
    _check_rows(settings, language_model)
    seed_everything(settings.seed + rank())
    if settings.held_out.from_pool:
        train_tasks = [task for task in train_tasks if task not in settings.held_out.tasks]
    tasks = chosen_tasks(train_tasks, settings.episodes.training_tasks, settings.episodes.training_tasks_draw)
    pools = load_pools(source, tasks, settings.episodes)
    check_pools({task: len(pool) for task, pool in pools.items()}, settings.shots)
    return pools


def check_held_out(settings: MetaTrainSettings, train_tasks: Sequence[str]) -> None:
    """Refuse a task that is watched as held out while it is trained on.

    Raises:
        ConfigError: such a task of `trainer.held_out.tasks`.
    """
    held_out = settings.held_out
    both = [task for task in held_out.tasks if task in train_tasks]
    if both and not held_out.from_pool:
        raise ConfigError(
            "trainer.held_out.tasks",
            f"{both[0]!r} is trained on too",
            "name others, or set trainer.held_out.from_pool=true, which leaves them out of training",
        )


_LEARNABLE = (DemonstrationLabels.GOLD, DemonstrationLabels.RANDOM_WORDS)
"""Demonstrations whose labels can be told from what stands before them."""


def _check(settings: MetaTrainSettings) -> None:
    episodes = settings.episodes
    if not settings.method.trained:
        raise ConfigError(
            "method",
            f"{settings.method.name!r} needs no training",
            "use metaicl, multitask_zero or their channel_ forms",
        )
    if settings.k < 0:
        raise ConfigError("k", f"{settings.k} is negative", "0 or more")
    share, rest = divmod(episodes.batch_size, world_size())
    if rest or share < 1:
        raise ConfigError(
            "trainer.batch_size",
            f"{episodes.batch_size} sequences cannot be shared evenly by {world_size()} processes",
            "make it a multiple",
        )
    if episodes.micro_batch_size != "auto" and episodes.micro_batch_size < 1:
        raise ConfigError(
            "trainer.micro_batch_size", f"{episodes.micro_batch_size} is not positive", "auto, or 1 and more"
        )
    if (
        min(episodes.token_weight, episodes.option_weight) < 0
        or not episodes.token_weight + episodes.option_weight
    ):
        raise ConfigError(
            "trainer.option_weight",
            f"weights {episodes.token_weight} of tokens and {episodes.option_weight} of options train nothing",
            "0 or more each, and one of them positive",
        )
    if episodes.option_weight and episodes.no_masking:
        raise ConfigError(
            "trainer.no_masking",
            "has no question whose options could be compared",
            "set trainer.option_weight=0",
        )
    if episodes.loss_on is LossOn.EVERY and episodes.demonstration_labels not in _LEARNABLE:
        raise ConfigError(
            "trainer.loss_on",
            f"every demonstration is trained on, but demonstration_labels={episodes.demonstration_labels.value}",
            "use trainer.loss_on=query",
        )
    if not 0 < episodes.pool_fraction <= 1:
        raise ConfigError("trainer.pool_fraction", f"{episodes.pool_fraction} is not in (0, 1]", "use 1.0")


def _check_rows(settings: MetaTrainSettings, language_model: LanguageModel) -> None:
    """Refuse a model that mixes up what stands in one row, where rows hold more than a sequence."""
    episodes = settings.episodes
    if episodes.batching is Batching.PACKED:
        check_rows_of_several(language_model.model, "trainer.batching")
    elif episodes.option_weight:
        check_rows_of_several(language_model.model, "trainer.option_weight")


def chosen_tasks(tasks: Sequence[str], count: int | None, draw: int) -> list[str]:
    """All `tasks`, or `count` of them, in their order (paper, Figure 2: 7, 15 and 30 of 61, ten draws each).

    The paper's own draws are not published; draw n here is the same on every machine.

    Raises:
        ConfigError: more asked for than there are.
    """
    if count is None:
        return list(tasks)
    if not 1 <= count <= len(tasks):
        raise ConfigError(
            "trainer.training_tasks",
            f"{count} of {len(tasks)} tasks",
            f"1 to {len(tasks)}, or null for all",
        )
    drawn = np.random.default_rng([draw, 4]).choice(len(tasks), size=count, replace=False)
    return [tasks[int(number)] for number in sorted(drawn)]


def load_pools(source: TaskSource, tasks: Sequence[str], episodes: EpisodeConfig) -> dict[str, list[Example]]:
    """Training examples by task, cut to `pool_size` and `pool_fraction`; generated tasks last.

    Raises:
        ConfigError: generated tasks beside those of `data=synthetic`, which are the same.
    """
    origins: dict[str, TaskSource] = dict.fromkeys(tasks, source)
    if episodes.generated_tasks:
        generated = SyntheticSource(train_tasks=episodes.generated_tasks)
        names = generated.training_tasks()
        if same := [name for name in names if name in origins]:
            raise ConfigError(
                "trainer.generated_tasks",
                f"{same[0]!r} is among the training tasks already",
                "set data.train_tasks instead",
            )
        origins |= dict.fromkeys(names, generated)
    pools: dict[str, list[Example]] = {}
    for number, (task, origin) in enumerate(origins.items()):
        pool = origin.pool(task, size=episodes.pool_size, seed=episodes.pool_seed)
        if episodes.pool_fraction < 1:
            rng = np.random.default_rng([episodes.pool_seed, 5, number])
            kept = rng.choice(
                len(pool), size=max(1, round(len(pool) * episodes.pool_fraction)), replace=False
            )
            pool = [pool[index] for index in sorted(kept.tolist())]
        pools[task] = pool
    return pools
