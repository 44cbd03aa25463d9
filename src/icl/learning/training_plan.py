"""What a meta-training would cost, before any weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metashot.data.tasks.source import TaskSource
from metashot.engine.models.free_memory import free_memory
from metashot.engine.models.loading import LazyLanguageModel, resolve_device
from metashot.engine.models.throughput import duration, matmul_flops_per_second
from metashot.engine.scoring.plan import ModelSize
from metashot.icl.learning.batches.episode_stream import episode_stream
from metashot.icl.learning.batches.slices import pick_slices
from metashot.icl.learning.meta_training import check_held_out, chosen_tasks, load_pools
from metashot.icl.learning.training_settings import MetaTrainSettings
from metashot.icl.learning.writing.sequences import TrainingSequence

_BACKWARD_FACTOR = 3
"""A backward pass costs two forward passes of matrix products."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Figures of a meta-training; lengths are means over the first steps.

    Attributes:
        tasks: training tasks.
        steps: optimizer steps.
        batch_size: sequences of a step.
        tokens: tokens of a sequence.
        target_tokens: scored tokens of a sequence.
        longest: tokens of the longest sequence seen.
        sequences: those of the first steps.
    """

    tasks: int
    steps: int
    batch_size: int
    tokens: float
    target_tokens: float
    longest: int
    sequences: tuple[TrainingSequence, ...] = ()

    def flops(self, config: Any) -> float:
        """Floating-point operations of the whole training (a multiply-add is two)."""
        size = ModelSize.of(config)
        weights = 2 * size.layers * size.layer_weights * self.tokens
        attention = 2 * size.layers * size.attention_width * self.tokens**2
        head = 2 * size.head_weights * self.target_tokens
        return _BACKWARD_FACTOR * (weights + attention + head) * self.steps * self.batch_size


def plan_training(
    settings: MetaTrainSettings, model: LazyLanguageModel, source: TaskSource, tasks: Sequence[str]
) -> TrainingPlan:
    """Build the first steps' sequences and take their lengths.

    Raises:
        ConfigError, DataError: what training itself would refuse.
    """
    check_held_out(settings, tasks)
    chosen = chosen_tasks(tasks, settings.episodes.training_tasks, settings.episodes.training_tasks_draw)
    pools = load_pools(source, chosen, settings.episodes)
    stream = episode_stream(settings, model.tokenizer, model.context_length, pools)
    sequences = stream.first_sequences()
    return TrainingPlan(
        tasks=len(pools),
        steps=settings.loop.steps,
        batch_size=settings.episodes.batch_size,
        tokens=sum(one.tokens for one in sequences) / len(sequences),
        target_tokens=sum(one.target_tokens for one in sequences) / len(sequences),
        longest=max(one.tokens for one in sequences),
        sequences=tuple(sequences),
    )


def training_line(plan: TrainingPlan, config: Any, state_bytes: float) -> str:
    """One line: steps, lengths, time on this machine, memory.

    Args:
        plan: from `plan_training`.
        config: the model's.
        state_bytes: of the optimizer, per weight; weights and gradients take four each besides.
    """
    weights = ModelSize.of(config).stored_weights
    seconds = plan.flops(config) / matmul_flops_per_second("float32")
    state = weights * (8 + state_bytes) / 2**20
    return (
        f"training: {plan.steps:,} steps of {plan.batch_size} sequences from {plan.tasks} tasks; "
        f"{plan.tokens:.0f} tokens a sequence (longest {plan.longest}), {plan.target_tokens:.1f} of them targets; "
        f"at least {duration(seconds)} of float32 arithmetic on this machine; "
        f"{state:,.0f} MB of weights, gradients and optimizer state"
    )


def slices_line(
    plan: TrainingPlan, settings: MetaTrainSettings, model: LazyLanguageModel, config: Any, state_bytes: float
) -> str:
    """One line: what `trainer.micro_batch_size=auto` would pick with the memory that is free here now.

    Args:
        plan: from `plan_training`.
        settings: of the training.
        model: what would be trained.
        config: its transformers config.
        state_bytes: of the optimizer, per weight.
    """
    device = str(resolve_device(model.spec.device))
    pending = ModelSize.of(config).stored_weights * (4 if settings.trainable.lora else 8 + state_bytes)
    return pick_slices(
        settings,
        config,
        plan.sequences,
        context_length=model.context_length,
        free=free_memory(device) - pending,
        on_gpu=device.startswith("cuda"),
    ).line()
