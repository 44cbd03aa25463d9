"""Partial attention merges to full attention."""

import math

import pytest
import torch

from metashot.engine.scoring.attention import merge_
from metashot.engine.scoring.kernels import Kernel, partial_attention
from metashot.engine.scoring.layout import MASKED


def _inputs(heads=4, groups=4, queries=7, keys=11, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, heads, queries, size, generator=generator),
        torch.randn(2, groups, keys, size, generator=generator),
        torch.randn(2, groups, keys, size, generator=generator),
    )


def test_two_keys_merge_by_the_sigmoid_of_their_scores():
    """Scores 0 and log 3 give weights 1/4 and 3/4, and a log-sum-exp of log 4."""
    out, total = torch.tensor([[8.0]]), torch.tensor([0.0])
    merge_(out, total, torch.tensor([[4.0]]), torch.tensor([math.log(3.0)]))
    assert out.item() == pytest.approx(0.25 * 8 + 0.75 * 4)
    assert total.item() == pytest.approx(math.log(4.0))


def test_merging_a_fully_masked_part_changes_nothing():
    out, total = torch.tensor([[8.0]]), torch.tensor([0.5])
    merge_(out, total, torch.tensor([[4.0]]), torch.tensor([MASKED]))
    assert (out.item(), total.item()) == (8.0, 0.5)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_over_two_parts_is_attention_over_all_keys(groups, softcap):
    queries, keys, values = _inputs(groups=groups)
    kernel = Kernel(0.3, softcap)
    out, total = partial_attention(queries, keys[:, :, :4], values[:, :, :4], kernel)
    merge_(out, total, *partial_attention(queries, keys[:, :, 4:], values[:, :, 4:], kernel))
    whole, whole_total = partial_attention(queries, keys, values, kernel)
    torch.testing.assert_close(out, whole)
    torch.testing.assert_close(total, whole_total)


def test_causal_queries_past_the_keys_see_all_of_them():
    queries, keys, values = _inputs(queries=9, keys=5)
    for softcap in (None, 1e9):  # the fused kernel and the tiled one
        out, total = partial_attention(queries, keys, values, Kernel(0.3, softcap), causal=True)
        scores = (queries @ keys.mT * 0.3).masked_fill(~torch.ones(9, 5).tril().bool(), -torch.inf)
        torch.testing.assert_close(out, scores.softmax(-1) @ values)
        torch.testing.assert_close(total, scores.logsumexp(-1))
