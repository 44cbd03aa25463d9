"""MetaICL meta-training: many tasks, k demonstrations and a query each, loss on the query's target.

With k = 0 this is the multi-task zero-shot baseline; with the channel objective input and label change places.
Source: MetaICL paper, section 3; released code (docs/methods.md, loss and meta-training).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from metashot.data.episodes import EpisodeSampler, check_pools
from metashot.data.source import TaskSource
from metashot.data.task import Example
from metashot.engine.errors import ConfigError
from metashot.engine.models.loading import LanguageModel
from metashot.engine.scoring import PlainScorer
from metashot.engine.training.checkpoint import CheckpointStore
from metashot.engine.training.learner import MetricSink, StepReport, ensure_finite
from metashot.engine.training.loop import TrainingOutcome, run_training
from metashot.engine.training.randomness import seed_everything
from metashot.engine.training.ranks import join_ranks, max_over_ranks, rank, world_size
from metashot.engine.training.trainable import TrainableModel
from metashot.icl.attention_mask import check_rows_of_several
from metashot.icl.cell import PromptRules, Truncation
from metashot.icl.collate import Batching, collate
from metashot.icl.episode_stream import EpisodeStream, batch_identity
from metashot.icl.held_out import MakeScorer, held_out_metrics, load_held_out
from metashot.icl.objective import LossWeights, TargetLoss
from metashot.icl.piece_cache import PieceCache, batch_encoder
from metashot.icl.prompting.boundary import Boundary
from metashot.icl.prompting.config import BoundPrompt
from metashot.icl.prompting.frame import TextFrame
from metashot.icl.sequence_labels import DemonstrationLabels
from metashot.icl.sequences import LossOn, SequenceRules
from metashot.icl.training_settings import EpisodeConfig, MetaTrainSettings, run_identity, trained_for


def train(
    settings: MetaTrainSettings,
    language_model: LanguageModel,
    source: TaskSource,
    train_tasks: Sequence[str],
    target_tasks: Sequence[str],
    output: Path,
    sink: MetricSink | None = None,
    make_scorer: MakeScorer = PlainScorer,
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
    join_ranks()
    _check(settings)
    _check_rows(settings, language_model)
    seed_everything(settings.seed + rank())
    if settings.held_out.from_pool:
        train_tasks = [task for task in train_tasks if task not in settings.held_out.tasks]
    tasks = chosen_tasks(train_tasks, settings.episodes.training_tasks, settings.episodes.training_tasks_draw)
    pools = load_pools(source, tasks, settings.episodes)
    check_pools({task: len(pool) for task, pool in pools.items()}, settings.shots)
    learner = MetaLearner(settings, language_model, pools, source, target_tasks, make_scorer)
    store = CheckpointStore(
        output / "checkpoints",
        identity=run_identity(settings, language_model, pools),
        method=trained_for(settings, language_model.tokenizer),
        keep_last=settings.keep_last,
        keep_best=settings.keep_best,
    )
    return run_training(learner, settings.loop, store, sink)


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
    if episodes.micro_batch_size < 1:
        raise ConfigError("trainer.micro_batch_size", f"{episodes.micro_batch_size} is not positive", "try 8")
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
    """Training examples by task, cut to `pool_size` and `pool_fraction`."""
    pools: dict[str, list[Example]] = {}
    for number, task in enumerate(tasks):
        pool = source.pool(task, size=episodes.pool_size, seed=episodes.pool_seed)
        if episodes.pool_fraction < 1:
            rng = np.random.default_rng([episodes.pool_seed, 5, number])
            kept = rng.choice(
                len(pool), size=max(1, round(len(pool) * episodes.pool_fraction)), replace=False
            )
            pool = [pool[index] for index in sorted(kept.tolist())]
        pools[task] = pool
    return pools


class MetaLearner:
    """The `engine.learner.Learner` of MetaICL."""

    def __init__(
        self,
        settings: MetaTrainSettings,
        language_model: LanguageModel,
        pools: Mapping[str, Sequence[Example]],
        source: TaskSource,
        target_tasks: Sequence[str],
        make_scorer: MakeScorer,
    ) -> None:
        self._settings = settings
        self._language_model = language_model
        self._task_names = list(pools)
        self._make_scorer = make_scorer
        self._rules = PromptRules(
            settings.method,
            training_prompt(settings, language_model.tokenizer),
            Truncation.SHARED,
            settings.episodes.limits,
            language_model.context_length,
        )
        self._stream = episode_stream(
            settings, language_model.tokenizer, language_model.context_length, pools
        )
        held_out = settings.held_out
        evaluates = settings.loop.evaluate_every > 0
        wanted = held_out.tasks or target_tasks
        shots = settings.method.shots(held_out.k)
        self._cells = load_held_out(source, wanted, held_out, shots) if evaluates else []
        loss_weights = LossWeights(settings.episodes.token_weight, settings.episodes.option_weight)
        self._trainable = TrainableModel(
            language_model,
            partial(TargetLoss, loss_weights=loss_weights),
            settings.trainable,
            settings.optimizer,
            settings.loop.steps,
        )

    @property
    def device(self) -> torch.device:
        """This process' device."""
        return self._trainable.device

    def train_step(self, step: int) -> StepReport:
        """One optimizer step: forward and backward of this rank's micro-batches, then the update."""
        episodes = self._settings.episodes
        everything = self._stream.step(step)
        # A sequence without a scored target (an empty input in channel training) has no mean to take part with.
        counted = max(1, sum(sequence.target_tokens > 0 for sequence in everything))
        micro_batches = self._stream.micro_batches(step, world_size(), rank(), episodes.micro_batch_size)
        pad_to = self._pad_to() if episodes.batching is Batching.PADDED else 0
        loss = torch.zeros((), device=self.device)
        for place, sequences in enumerate(micro_batches):
            # DDP and FSDP average gradients over ranks, the loss is a mean over all of them: hence the factor.
            batch = collate(sequences, episodes.batching, counted / world_size(), pad_to).to(self.device)
            loss += self._trainable.loss_backward(batch, last=place == len(micro_batches) - 1)
        value = float(loss)
        mine = [sequence for part in micro_batches for sequence in part]
        if max_over_ranks(not np.isfinite(value), self.device):
            ensure_finite(
                value if not np.isfinite(value) else float("nan"),
                batch_identity(step, mine, self._task_names),
            )
        report = self._trainable.updater.apply(step)
        return StepReport(value, len(mine), sum(sequence.target_tokens for sequence in mine), report)

    def _pad_to(self) -> int:
        limits = self._settings.episodes.limits
        longest = limits.sequence if self._settings.shots else limits.per_example
        return min(longest, self._language_model.context_length)

    def evaluate(self, step: int) -> dict[str, float]:
        """Mean metrics over the held-out cells."""
        del step
        model = self._trainable.model
        model.eval()
        try:
            return held_out_metrics(self._language_model, self._cells, self._rules, self._make_scorer)
        finally:
            model.train()

    def weights(self) -> dict[str, Tensor]:
        """The model's weights."""
        return self._trainable.weights()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put weights back."""
        self._trainable.load_weights(weights)

    def state(self) -> Any:
        """Optimizer and loss-scale state."""
        return self._trainable.state()

    def load_state(self, state: Any) -> None:
        """Put the state back."""
        self._trainable.load_state(state)

    def export(self, folder: Path) -> None:
        """Config and tokenizer, so that the checkpoint loads as `model=local`."""
        self._trainable.export(folder)


def training_prompt(settings: MetaTrainSettings, tokenizer: PreTrainedTokenizerBase) -> BoundPrompt:
    """The prompt format of the training sequences; released layouts are the newline one, whatever the model.

    Raises:
        ConfigError: a format that sequences built from pieces cannot have.
    """
    if settings.prompt.boundary is Boundary.JOINT:
        raise ConfigError(
            "prompt.boundary",
            "joint, but training sequences are joined from pieces that are tokenized once",
            "use prompt.boundary=separate",
        )
    prompt = settings.prompt.bind(settings.method, "", tokenizer)
    frame = prompt.frame
    if isinstance(frame, TextFrame) and frame.query_middle != frame.middle:
        raise ConfigError(
            "prompt",
            "the chat template writes the turn that is answered differently from the others, so demonstrations would "
            "not look like queries",
            "set prompt.options so that they agree, or use prompt=template",
        )
    return prompt


def episode_stream(
    settings: MetaTrainSettings,
    tokenizer: PreTrainedTokenizerBase,
    context_length: int,
    pools: Mapping[str, Sequence[Example]],
) -> EpisodeStream:
    """The sequences of every step of a run; needs a tokenizer, no weights."""
    episodes = settings.episodes
    prompt = training_prompt(settings, tokenizer)
    encode = batch_encoder(tokenizer)
    sampler = EpisodeSampler(
        tuple(len(pool) for pool in pools.values()),
        settings.shots,
        settings.seed,
        episodes.task_sampling,
        tuple(map(label_numbers, pools.values())) if episodes.balanced_labels else (),
    )
    cache = PieceCache(list(pools.values()), encode, prompt.frame)
    rules = SequenceRules(
        prompt.frame,
        episodes.limits,
        context_length,
        (*prompt.bos, *encode([prompt.frame.opening])[0]),
        episodes.demonstration_labels,
        episodes.no_masking,
        settings.seed,
        episodes.loss_on,
        alternatives=episodes.option_weight > 0,
        replaced_share=episodes.replaced_share,
        released_free_form=episodes.released_free_form,
    )
    return EpisodeStream(
        sampler,
        cache,
        rules,
        batching=episodes.batching,
        batch_size=episodes.batch_size,
        bucket_batches=episodes.bucket_batches,
    )


def label_numbers(pool: Sequence[Example]) -> tuple[int, ...]:
    """Number of each example's label among the task's; empty for tasks whose options differ from row to row."""
    options = {frozenset(example.options) for example in pool}
    if len(options) != 1 or not pool[0].options:
        return ()
    places = {label: number for number, label in enumerate(sorted(pool[0].options))}
    return tuple(places[example.output] for example in pool)
