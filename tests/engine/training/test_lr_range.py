"""The range test finds the rate below which a problem with a known largest rate is still learned."""

from __future__ import annotations

import pytest
import torch

from metashot.base.errors import ConfigError
from metashot.engine.training.learner import DivergedError, StepReport, ensure_finite
from metashot.engine.training.lr_range import LrRange, LrRangeConfig, lr_range_test


class Parabola:
    """Gradient descent on curvature x^2 / 2, which shrinks x for rates below 2 / curvature and blows it up above."""

    device = torch.device("cpu")

    def __init__(self, curvature: float, start: float = 1.0) -> None:
        self.curvature, self.x, self.rate = curvature, start, 0.0

    def set_rate(self, rate: float) -> None:
        self.rate = rate

    def train_step(self, step: int) -> StepReport:
        loss = 1.0 + self.curvature * self.x**2 / 2
        ensure_finite(loss, {"step": step})
        self.x -= self.rate * self.curvature * self.x
        return StepReport(loss, 1, 1)


@pytest.mark.parametrize("curvature", [1.0, 100.0])
def test_the_suggestion_is_a_tenth_of_where_descent_ends(curvature: float) -> None:
    learner = Parabola(curvature)
    found = lr_range_test(learner, learner.set_rate, LrRangeConfig(1e-5, 1e3, steps=200))
    assert found.ended == "rising"
    # The least loss lies near the largest stable rate: the smoothed loss lags by about 1 / (1 - 0.9) steps.
    assert 0.5 < found.suggestion * 10 / (2 / curvature) < 6
    assert found.rates == sorted(found.rates)
    assert len(found.rates) == len(found.losses) < 200


def test_rates_grow_by_one_factor_from_the_lowest_to_the_highest() -> None:
    config = LrRangeConfig(1e-4, 1e-2, steps=11)
    rates = [config.rate(step) for step in range(11)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[5] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1e-2)


def test_smoothing_starts_without_a_bias_to_zero() -> None:
    learner = Parabola(0.0)
    found = lr_range_test(learner, learner.set_rate, LrRangeConfig(steps=10))
    assert found.losses == pytest.approx([1.0] * 10)
    assert found.ended == "finished"


def test_a_loss_that_is_no_number_ends_the_test_and_in_the_first_step_blames_no_rate() -> None:
    class Fails(Parabola):
        def __init__(self, at: int) -> None:
            super().__init__(1.0)
            self.at = at

        def train_step(self, step: int) -> StepReport:
            ensure_finite(float("nan") if step == self.at else 1.0, {})
            return super().train_step(step)

    learner = Fails(3)
    found = lr_range_test(learner, learner.set_rate, LrRangeConfig(steps=10))
    assert (found.ended, len(found.rates)) == ("diverged", 3)
    with pytest.raises(DivergedError):
        lr_range_test(Fails(0), lambda rate: None, LrRangeConfig(steps=10))


@pytest.mark.parametrize("keys", [{"lowest": 1.0}, {"lowest": 0.0}, {"steps": 9}])
def test_a_range_that_is_none_is_refused(keys: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"find_lr\."):
        LrRangeConfig(**keys)  # pyright: ignore[reportArgumentType]


def test_the_suggestion_of_a_curve() -> None:
    assert LrRange([1e-4, 1e-3, 1e-2], [3.0, 1.0, 2.0], "finished").suggestion == pytest.approx(1e-4)
