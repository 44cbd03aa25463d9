"""`trainer.micro_batch_size: auto`: how many sequences of a step go through the model at a time on this machine.

A step's gradient is the same however the step is sliced. What is drawn in the model is not: with dropout, other
slices see other masks, as another seed would. So the number is kept in checkpoints, and a resumed training stays with
it; to repeat a training with dropout elsewhere, write the number that the log says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metashot.engine.training.activation_memory import ActivationMemory
from metashot.icl.learning.training_settings import Batching, MetaTrainSettings
from metashot.icl.learning.writing.sequences import TrainingSequence

_USED = 0.8
"""Share of the free memory that a step may fill: allocators do not return all that is free again."""
_CPU_TOKENS = 2048
"""Activations of more tokens leave a processor's caches (experiments/bench_training)."""
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Slicing:
    """What was picked, and from what.

    Attributes:
        size: sequences of a forward pass.
        share: sequences of a step on this process.
        tokens: of the longest sequence that may come.
        bytes_each: what one of that length needs.
        free: bytes that activations may take; negative where not even the optimizer fits.
    """

    size: int
    share: int
    tokens: int
    bytes_each: float
    free: float

    def line(self) -> str:
        """One line for log and plan."""
        passes = -(-self.share // self.size)
        line = (
            f"trainer.micro_batch_size=auto: {self.size} sequences a forward pass, {passes} of them a step; "
            f"one of {self.tokens:,} tokens needs {self.bytes_each / _GB:.1f} GB of the {max(0.0, self.free) / _GB:.1f} GB that are there"
        )
        if self.bytes_each <= self.free:
            return line
        return f"{line}: too little; trainer.gradient_checkpointing=true or trainer.attention_dropout=0 need less"


def pick_slices(
    settings: MetaTrainSettings,
    config: Any,
    sample: Sequence[TrainingSequence],
    *,
    context_length: int,
    free: float,
    on_gpu: bool,
    processes: int = 1,
) -> Slicing:
    """As many sequences as fit, in slices of equal size; on a CPU no more than some 2,000 tokens of the usual length.

    Args:
        settings: of the training.
        config: the model's transformers config.
        sample: sequences of the first steps.
        context_length: positions of the model.
        free: bytes that are free once weights, gradients and optimizer state are there.
        on_gpu: where the model lies.
        processes: that share a step.
    """
    memory = ActivationMemory.of(config, settings.trainable, on_gpu=on_gpu)
    tokens = max(longest_sequence(settings, context_length), *(one.tokens for one in sample))
    targets = tokens if settings.episodes.no_masking else max(map(_projected, sample))
    each, room = memory.of_sequence(tokens, targets), _USED * free - memory.fixed
    share = settings.episodes.batch_size // processes
    fitting = int(room // each)
    if not on_gpu:
        padded = settings.episodes.batching is Batching.PADDED
        usual = tokens if padded else sum(one.tokens for one in sample) / len(sample)
        fitting = min(fitting, round(_CPU_TOKENS / usual))
    passes = -(-share // min(share, max(1, fitting)))
    return Slicing(-(-share // passes), share, tokens, each, room)


def longest_sequence(settings: MetaTrainSettings, context_length: int) -> int:
    """Tokens of the longest sequence that the limits allow."""
    limits = settings.episodes.limits
    return min(limits.sequence if settings.shots else limits.per_example, context_length)


def _projected(sequence: TrainingSequence) -> int:
    """Positions whose logits are needed: targets, and what wrong options add to the sequence."""
    return sequence.target_tokens + sequence.tokens - len(sequence.ids)
