"""Curriculum, mixing and similarities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metashot.metaprompt.meta.steps.interpolation import (
    coefficient_loss,
    curriculum_ratio,
    domain_similarity,
    draw_mixing_weights,
    gradient_similarity,
    mix,
    mix_states,
    mixed_target_loss,
    update_similarity,
)


def test_curriculum_by_hand():
    """s = 0: no mixing; s = 0.5: sqrt(2) - 1; s = 1: uniform."""
    assert curriculum_ratio(0.0, 2.0) == pytest.approx(1e-7)
    assert curriculum_ratio(0.5, 2.0) == pytest.approx(math.sqrt(2) - 1)
    assert curriculum_ratio(1.0, 2.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("similarity", "mean"), [(0.0, 1.0), (0.5, 0.707), (1.0, 0.5)])
def test_mean_mixing_weight_follows_the_similarity(similarity: float, mean: float):
    """E lambda = 1 / (1 + c)."""
    draws = draw_mixing_weights(
        np.random.default_rng(0), 20_000, concentration=1.0, ratio=curriculum_ratio(similarity, 2.0)
    )
    assert draws.mean() == pytest.approx(mean, abs=0.01)


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=5))
def test_mixing_at_one_and_zero_returns_its_ends(values: list[float]):
    first, second = torch.tensor(values), torch.tensor(values[::-1])
    assert torch.equal(mix(first, second, torch.tensor(1.0)), first)
    assert torch.equal(mix(first, second, torch.tensor(0.0)), second)


def test_states_at_one_and_zero_are_one_batch_with_its_own_mask():
    first, second = torch.randn(1, 4, 2), torch.randn(1, 4, 2)
    long, short = torch.tensor([[True] * 4]), torch.tensor([[True, True, False, False]])
    for weight, states, mask in ((1.0, first, short), (0.0, second, long)):
        mixed, mixed_mask = mix_states(first, short, second, long, torch.tensor([weight]), mix_padding=False)
        assert torch.equal(mixed_mask, mask)
        assert torch.equal(mixed[mask], states[mask])


def test_padding_is_not_mixed_in_unless_asked():
    """Position 2 is real in the second batch only: it is taken whole, the released rule halves it."""
    first, second = torch.zeros(1, 3, 1), torch.ones(1, 3, 1)
    short, long = torch.tensor([[True, True, False]]), torch.tensor([[True] * 3])
    half = torch.tensor([0.5])
    corrected, _ = mix_states(first, short, second, long, half, mix_padding=False)
    released, mask = mix_states(first, short, second, long, half, mix_padding=True)
    assert corrected.flatten().tolist() == [0.5, 0.5, 1.0]
    assert released.flatten().tolist() == [0.5, 0.5, 0.5]
    assert mask.all()


def test_mixed_loss_by_hand():
    """Uniform model over 4 tokens, lambda = 0.5, different targets: KL = log 4 - H(0.5) = log 2 per position."""
    logits = torch.zeros(1, 2, 4)
    same, other = torch.tensor([[1, 2]]), torch.tensor([[1, 3]])
    loss = mixed_target_loss(logits, same, other, torch.tensor([0.5]))
    assert float(loss) == pytest.approx(math.log(4) + math.log(2))


@given(st.floats(0.0, 1.0, width=32), st.integers(0, 3), st.integers(0, 3))
def test_mixed_loss_is_the_kl_divergence(weight: float, first: int, second: int):
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 4)
    target = torch.zeros(4)
    target[first] += weight
    target[second] += 1 - weight
    expected = torch.nn.functional.kl_div(torch.log_softmax(logits[0, 0], -1), target, reduction="sum")
    loss = mixed_target_loss(
        logits, torch.tensor([[first]]), torch.tensor([[second]]), torch.tensor([weight])
    )
    torch.testing.assert_close(loss[0], expected, rtol=1e-4, atol=1e-5)


def test_running_similarity():
    assert update_similarity(0.0, 0.8, 0.5) == 0.8
    assert update_similarity(0.8, 0.4, 0.5) == pytest.approx(0.6)


def test_similarities_by_hand():
    """Opposite vectors 0, equal 1, orthogonal 1/2; the loss is the squared distance to their mean."""
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert float(domain_similarity(x, x)) == 1.0
    assert float(domain_similarity(x, -x)) == 0.0
    assert float(gradient_similarity(x, y)) == 0.5
    loss = coefficient_loss(torch.tensor([0.25]), torch.tensor([1.0]), torch.tensor([0.5]))
    assert float(loss) == 0.25
