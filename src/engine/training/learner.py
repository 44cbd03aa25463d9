"""What the training loop and a method in training tell each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from metashot.base.errors import MetashotError

if TYPE_CHECKING:
    import torch


class DivergedError(MetashotError):
    """The loss explodes, or loss or weights are no longer numbers; step and batch are in `diverged.json`.

    Args:
        problem: what is wrong.
        batch: JSON-able identity of the batch.
        task: whose loss it is, where that is known.
        step: optimizer steps that were done.
        remedy: what the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        batch: Any = None,
        task: str | None = None,
        step: int | None = None,
        remedy: str = "lower optimizer.learning_rate",
    ) -> None:
        self.batch = batch
        self.task = task
        at = "training" if step is None else f"training, after {step} steps"
        super().__init__(at, f"{problem}, of task {task!r}" if task else problem, remedy)


def ensure_finite(loss: float, batch: Any, task: str | None = None) -> None:
    """Raise DivergedError, carrying the JSON-able identity of the batch and a task, when `loss` is NaN or infinite."""
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss}", batch, task)


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step tells the loop.

    Attributes:
        loss: this rank's mean loss per sequence, in nats.
        sequences: sequences this rank trained on.
        target_tokens: target tokens among them.
        metrics: further numbers to log as they are (gradient norm, learning rate, ...).
        tokens: all their tokens, contexts included and padding not.
        means: sum and count of numbers that are averaged over ranks and over the steps of a log line; every rank has
            the same keys in every step.
    """

    loss: float
    sequences: int
    target_tokens: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    means: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Learner(Protocol):
    """A method in training. In a multi-process run every rank calls every function in the same order."""

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        ...

    def train_step(self, step: int, detour: int = 0) -> StepReport:
        """Do the 0-based optimizer step; raise through `ensure_finite` before the weights are touched.

        Each number of a `detour` stands for other data in the same step.
        """
        ...

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics on held-out tasks after `step` steps; must not change weights (RNG use is allowed)."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained tensors by name, for `model.safetensors`."""
        ...

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Put back what `weights` returned."""
        ...

    def state(self) -> Any:
        """Optimizer state and running statistics: nested dicts, lists, tensors and JSON values."""
        ...

    def load_state(self, state: Any) -> None:
        """Put back what `state` returned."""
        ...

    def export(self, folder: Path) -> None:
        """Add files that make the checkpoint usable by itself (only called on rank 0)."""
        ...


class MetricSink(Protocol):
    """The part of a tracker that the loop uses."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record `metrics` at `step`."""
        ...
