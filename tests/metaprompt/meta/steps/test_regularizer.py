"""psi: four rescale rules, the convex combination, the corrected last layer."""

from __future__ import annotations

import pytest
import torch

from metashot.base.errors import ConfigError
from metashot.metaprompt.meta.steps.regularizer import (
    GradientRegularizer,
    RegularizerConfig,
    Rescale,
    combine,
    rescale_like,
)

CORRECTED = RegularizerConfig(3, 1, True, "none", "near_identity", "row_l2", 5)
RELEASED = RegularizerConfig(1920, 1, False, "relu", "normal", "row_l2", 24)


def make(config: RegularizerConfig = CORRECTED, width: int = 6, seed: int = 0) -> GradientRegularizer:
    torch.manual_seed(seed)
    return GradientRegularizer(width, config)


def test_coefficient_one_is_the_identity():
    regularizer = make()
    torch.nn.init.constant_(regularizer.output.bias, 200.0)  # sigmoid(200) is 1 in float32
    gradient = torch.randn(4, 6)
    out, coefficient = regularizer(gradient, torch.randn(6))
    assert coefficient.detach() == 1.0
    assert torch.equal(out, gradient)


def test_combine_by_hand():
    """z = 0.25: 0.75 * 8 + 0.25 * 4 = 7."""
    out = combine(torch.full((1, 1), 4.0), torch.full((1, 1), 8.0), torch.tensor(0.25))
    assert out.tolist() == [[7.0]]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # h = [[3, 4], [0, 1]], g = [[6, 8], [0, 2]]: every size of g is twice that of h.
        (Rescale.ROW_L2, [[6.0, 8.0], [0.0, 2.0]]),
        (Rescale.MATRIX_L2, [[6.0, 8.0], [0.0, 2.0]]),
        (Rescale.ROW_L1, [[6.0, 8.0], [0.0, 2.0]]),
        (Rescale.MATRIX_L1, [[6.0, 8.0], [0.0, 2.0]]),
    ],
)
def test_rescale_gives_the_size_of_the_gradient(variant: Rescale, expected: list[list[float]]):
    out = rescale_like(
        torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[6.0, 8.0], [0.0, 2.0]]), variant
    )
    torch.testing.assert_close(out, torch.tensor(expected))


def test_row_and_matrix_rules_differ_where_rows_do():
    """Rows of g of length 5 and 0, of h 1 and 1: by row the second vanishes, by matrix both get 5 / sqrt(2)."""
    h, g = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    by_row = rescale_like(h, g, Rescale.ROW_L2)
    by_matrix = rescale_like(h, g, Rescale.MATRIX_L2)
    torch.testing.assert_close(by_row, torch.tensor([[5.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(by_matrix, torch.eye(2) * 5 / 2**0.5)


@pytest.mark.parametrize("variant", list(Rescale))
def test_a_zero_gradient_stays_zero_and_its_derivative_finite(variant: Rescale):
    config = RegularizerConfig(3, 1, True, "none", "near_identity", variant.value, 5)
    regularizer = make(config)
    out, _ = regularizer(torch.zeros(4, 6), torch.randn(6))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert out.abs().max() < 1e-6
    assert all(torch.isfinite(p.grad).all() for p in regularizer.parameters() if p.grad is not None)


def test_the_released_learned_branch_is_never_negative_and_ours_is_near_the_gradient():
    gradient = torch.randn(20, 6)
    assert (make(RELEASED).direction(gradient) >= 0).all()
    ours = make().direction(gradient)
    assert (ours < 0).any()
    assert torch.nn.functional.cosine_similarity(ours, gradient).mean() > 0.99


def test_many_tasks_at_once_equal_one_by_one():
    regularizer = make()
    gradients, states = torch.randn(3, 4, 6), torch.randn(3, 6)
    together, coefficients = regularizer(gradients, states)
    for index in range(3):
        alone, coefficient = regularizer(gradients[index], states[index])
        torch.testing.assert_close(together[index], alone)
        torch.testing.assert_close(coefficients[index], coefficient)


def test_every_parameter_learns():
    """Also behind the hidden ReLU: the near-identity start is small, not zero."""
    regularizer = make()
    out, _ = regularizer(torch.randn(4, 6), torch.randn(6))
    out.square().sum().backward()
    for name, parameter in regularizer.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0, name


def test_published_sizes():
    """2,379,313 parameters for width 768 and rank 1920 (docs/methods.md, the regularizer)."""
    count = sum(p.numel() for p in GradientRegularizer(768, RELEASED).parameters())
    assert count == 2_379_313


def test_unknown_choices_are_named():
    with pytest.raises(ConfigError, match=r"regularizer\.rescale: input should be 'row_l2', .*, got 'row'"):
        RegularizerConfig(3, 1, True, "none", "near_identity", "row", 5)
    with pytest.raises(ConfigError, match="last_activation"):
        RegularizerConfig(3, 1, True, "gelu", "near_identity", "row_l2", 5)
