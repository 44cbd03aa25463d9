"""The learning-rate range test: a short training whose rate grows from step to step.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3; the suggestion is fastai's
rule, a tenth of the rate at which the smoothed loss is least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from metashot.engine.training.config import LrRangeConfig
from metashot.engine.training.learner import DivergedError, StepReport
from metashot.engine.training.ranks import sum_over_ranks

_SMOOTHING = 0.9
_LOST = 4.0
"""The test ends where the smoothed loss is so many times the least one."""


@dataclass(frozen=True, slots=True)
class LrRange:
    """What a range test found.

    Attributes:
        rates: learning rate of every step that was taken.
        losses: smoothed loss of these steps, before their update, in nats.
        ended: why it ended: `finished`, `rising` or `diverged`.
    """

    rates: list[float]
    losses: list[float]
    ended: str

    @property
    def falls_at_the_end(self) -> bool:
        """Whether the loss is least at the highest rates tried, so that the best rate may lie above them."""
        return self.ended == "finished" and self.losses.index(min(self.losses)) >= len(self.losses) - 2

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the smoothed loss is least."""
        return self.rates[self.losses.index(min(self.losses))] / 10


class Stepping(Protocol):
    """The part of a `Learner` that the test needs."""

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        ...

    def train_step(self, step: int) -> StepReport:
        """One optimizer step."""
        ...


def lr_range_test(learner: Stepping, set_rate: Callable[[float], None], config: LrRangeConfig) -> LrRange:
    """Train `learner` (whose weights are lost afterwards) over the range, until the loss is lost or the steps are over.

    Raises:
        DivergedError: in the first step, where no rate is to blame.
    """
    rates, losses, average = [], [], 0.0
    for step in range(config.steps):
        rate = config.rate(step)
        set_rate(rate)
        try:
            report = learner.train_step(step)
        except DivergedError:
            if not losses:
                raise
            return LrRange(rates, losses, "diverged")
        loss, sequences = sum_over_ranks(
            [report.loss * report.sequences, float(report.sequences)], learner.device
        )
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss / max(sequences, 1.0)
        rates.append(rate)
        losses.append(average / (1 - _SMOOTHING ** (step + 1)))
        if losses[-1] > _LOST * min(losses):
            return LrRange(rates, losses, "rising")
    return LrRange(rates, losses, "finished")
