"""Partial attention merges to full attention."""

import math

import pytest
import torch

from metashot.engine.scoring import kernels
from metashot.engine.scoring.attention import merge_
from metashot.engine.scoring.kernels import Kernel, partial_attention, tiled_attention
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_soft_capped_scores_in_half_precision_are_rounded_nowhere(dtype):
    """Scores of 300 before scaling and cap have a grid of 2 in bfloat16; the sum over the keys must not see it."""
    queries, keys, values = (part.to(dtype) for part in _inputs(queries=40, keys=60, size=64))
    for scale, softcap in ((64**-0.5, 50.0), (0.5, 30.0)):
        out, total = partial_attention(5 * queries, 5 * keys, values, Kernel(scale, softcap), causal=True)
        wide = (5 * queries).float(), (5 * keys).float(), values.float()
        expected, expected_total = partial_attention(*wide, Kernel(scale, softcap), causal=True)
        torch.testing.assert_close(total, expected_total, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(out.float(), expected, atol=0.02, rtol=0.02)


def test_values_narrower_than_keys_and_wider_ones():
    queries, keys, values = _inputs()
    for size in (5, 8, 11):
        some = torch.cat([values, values], dim=-1)[..., :size]
        out, _ = partial_attention(queries, keys, some, Kernel(0.3))
        torch.testing.assert_close(out, (queries @ keys.mT * 0.3).softmax(-1) @ some)


def _efficient(queries, keys, values, bias, with_total, dropout, causal, *, scale):
    """What PyTorch's memory-efficient kernel promises, with its demands checked."""
    assert queries.shape[1] == keys.shape[1] == values.shape[1]
    assert queries.shape[-1] % 8 == keys.shape[-1] % 8 == values.shape[-1] % 8 == 0
    assert with_total
    assert dropout == 0
    scores = queries.float() @ keys.float().mT * scale
    if bias is not None:
        assert bias.dtype == queries.dtype
        assert bias.shape == scores.shape
        assert bias.stride(-2) % 8 == 0
        assert bias.isfinite().all()
        scores += bias.float()
    if causal:
        assert scores.shape[-1] == scores.shape[-2]
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:]).tril().bool(), -torch.inf)
    count = scores.shape[2]
    total = scores.new_full((*scores.shape[:2], -(-count // 32) * 32), torch.nan)
    total[..., :count] = scores.logsumexp(-1)
    return (scores.softmax(-1) @ values.float()).to(queries.dtype), total, None, None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["free", "masked", "causal", "past_the_keys"])
def test_the_gpu_path_gives_the_kernel_what_it_wants(monkeypatch, dtype, case):
    """The same code as on a GPU, on a stand-in for the kernel that a CPU lacks."""
    monkeypatch.setattr(kernels, "_efficient_attention", _efficient)
    count = {"causal": 11, "past_the_keys": 15}.get(case, 7)
    queries, keys, values = (part.to(dtype) for part in _inputs(groups=2, queries=count, size=12))
    mask = None
    if case == "masked":
        mask = torch.where(torch.arange(11) < torch.arange(7)[:, None], 0.0, MASKED)[None, None].expand(
            2, 1, 7, 11
        )
    arguments = (queries, keys, values[..., :9], 0.3, mask, count > 7)
    out, total = kernels._cuda_attention(*arguments)
    expected, expected_total = tiled_attention(*arguments[:3], Kernel(0.3), *arguments[4:])
    seen = slice(1, None) if mask is not None else slice(None)  # the first row sees nothing
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(out[:, :, seen], expected[:, :, seen], **tolerance)
    torch.testing.assert_close(total[:, :, seen], expected_total[:, :, seen], **tolerance)
    assert total[:, :, 0].max() < -5e4 if mask is not None else total.isfinite().all()
