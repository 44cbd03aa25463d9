"""What a training says of itself in one log line: means, rates and totals over the steps since the last one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from metashot.engine.training.learner import StepReport
from metashot.engine.training.ranks import sum_over_ranks


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of one step over all ranks."""

    loss: float
    sequences: float
    target_tokens: float
    tokens: float


def step_totals(report: StepReport, device: torch.device) -> Totals:
    """The step of all ranks; `loss` is the sum over sequences."""
    own = [report.loss * report.sequences, report.sequences, report.target_tokens, report.tokens]
    return Totals(*sum_over_ranks([float(value) for value in own], device))


@dataclass(slots=True)
class Window:
    """The steps since the last log line."""

    totals: list[Totals] = field(default_factory=list)
    means: dict[str, list[float]] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def add(self, totals: Totals, report: StepReport) -> None:
        """Take one step in."""
        self.totals.append(totals)
        for key, values in report.means.items():
            sums = self.means.setdefault(key, [0.0, 0.0])
            sums[0] += values[0]
            sums[1] += values[1]

    def metrics(self, report: StepReport, steps_left: int, device: torch.device) -> dict[str, float]:
        """Numbers of the window and of its last step; every rank must call it.

        Returns:
            `loss` (nats, mean over sequences), rates a second, `hours_left` at the window's pace, the last step's
            own metrics, and the means; a mean without a count is left out.
        """
        seconds = max(time.monotonic() - self.start, 1e-9)
        sequences = sum(one.sequences for one in self.totals)
        summed = sum_over_ranks([value for sums in self.means.values() for value in sums], device)
        pairs = zip(self.means, summed[::2], summed[1::2], strict=True)
        return {
            "loss": sum(one.loss for one in self.totals) / max(sequences, 1.0),
            "sequences_per_second": sequences / seconds,
            "target_tokens_per_second": sum(one.target_tokens for one in self.totals) / seconds,
            "tokens_per_second": sum(one.tokens for one in self.totals) / seconds,
            "steps_per_second": len(self.totals) / seconds,
            "hours_left": steps_left * seconds / len(self.totals) / 3600,
            **report.metrics,
            **{key: value / count for key, value, count in pairs if count},
        }
