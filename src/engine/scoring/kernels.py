"""Partial attention, over some of the keys, with the log-sum-exp of its scores: by the device's fused kernel or plainly.

Shapes: b parts side by side, h query heads, g key heads (h a multiple of g), q queries, k keys, e head size,
v head size of the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from metashot.engine.scoring.layout import MASKED


@dataclass(frozen=True, slots=True)
class Kernel:
    """Constants of one layer's attention.

    Attributes:
        scale: factor on the scores.
        softcap: scores become `softcap * tanh(scores / softcap)`, as in Gemma 2.
        sinks: [h] the score of one more key with value zero in every head, as in GPT-OSS.
    """

    scale: float
    softcap: float | None = None
    sinks: Tensor | None = None


# Private: `torch.nn.functional` has the kernels without the sum of weights, which parts of a cascade are joined by.
_efficient_attention = torch.ops.aten._scaled_dot_product_efficient_attention
_TILE_BYTES = 1 << 24
_CPU_DTYPES = (torch.float32, torch.bfloat16)
_CUDA_ALIGNMENT = 8
"""Head sizes and mask rows are multiples of this for the CUDA kernel."""

_HALF_MASKED = -6e4
"""What `MASKED` becomes in float16, whose numbers end at 65504."""


def partial_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    kernel: Kernel,
    mask: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Softmax attention over some of the keys, and the log-sum-exp of its scores; sinks are left out.

    Args:
        queries: [b, h, q, e].
        keys: [b, g, k, e].
        values: [b, g, k, v].
        kernel: the layer's constants.
        mask: None, or [b, 1, q, k] to add to the scores.
        causal: query i sees keys 0..i.

    Returns:
        [b, h, q, v], and float32 [b, h, q].
    """
    if kernel.softcap is None:
        if queries.device.type == "cuda":
            return _cuda_attention(queries, keys, values, kernel.scale, mask, causal)
        is_fitting = queries.dtype in _CPU_DTYPES and values.shape[-1] <= queries.shape[-1]
        if queries.device.type == "cpu" and is_fitting:
            return _cpu_attention(queries, keys, values, kernel.scale, mask, causal)
    return tiled_attention(queries, keys, values, kernel, mask, causal)


def _cpu_attention(
    queries: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """PyTorch's flash kernel for CPUs, which wants values as wide as keys."""
    size = values.shape[-1]
    # Private: as `_efficient_attention` above.
    out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        queries, keys, _widened(values, queries.shape[-1]), 0.0, causal, attn_mask=mask, scale=scale
    )
    return out[..., :size], total


def _cuda_attention(
    queries: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """PyTorch's memory-efficient kernel for GPUs: as many key heads as query heads, aligned sizes.

    Where queries run on past the keys of a causal part, the rest sees all keys: a part of its own, so that
    causal parts are square and it does not matter to which corner the kernel aligns them.
    """
    count, length = queries.shape[2], keys.shape[2]
    if causal and count > length:
        square = _cuda_attention(queries[:, :, :length], keys, values, scale, None, True)
        rest = _cuda_attention(queries[:, :, length:], keys, values, scale, None, False)
        return torch.cat((square[0], rest[0]), dim=2), torch.cat((square[1], rest[1]), dim=2)
    size, repeats = values.shape[-1], queries.shape[1] // keys.shape[1]
    if repeats > 1:
        keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
    aligned = -(-queries.shape[-1] // _CUDA_ALIGNMENT) * _CUDA_ALIGNMENT
    out, total, *_ = _efficient_attention(
        _widened(queries, aligned),
        _widened(keys, aligned),
        _widened(values, -(-size // _CUDA_ALIGNMENT) * _CUDA_ALIGNMENT),
        None if mask is None else _aligned_mask(mask, queries),
        True,
        0.0,
        causal,
        scale=scale,
    )
    # The kernel pads its log-sum-exp to whole blocks of queries.
    return out[..., :size], total[..., :count]


def _aligned_mask(mask: Tensor, queries: Tensor) -> Tensor:
    """The mask in the queries' dtype for all heads, over memory whose rows are aligned."""
    length = mask.shape[-1]
    if queries.dtype == torch.float16:
        mask = mask.clamp(min=_HALF_MASKED)
    padded = _widened(mask.to(queries.dtype), -(-length // _CUDA_ALIGNMENT) * _CUDA_ALIGNMENT)
    return padded[..., :length].expand(-1, queries.shape[1], -1, -1)


def _widened(rows: Tensor, size: int) -> Tensor:
    """`rows` with zeros behind its last dimension, up to `size`."""
    missing = size - rows.shape[-1]
    return functional.pad(rows, (0, missing)) if missing else rows


def tiled_attention(
    queries: Tensor, keys: Tensor, values: Tensor, kernel: Kernel, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """The same through plain products, a tile of queries at a time; scores and softmax in float32."""
    batch, heads, count, size = queries.shape
    groups = keys.shape[1]
    out = queries.new_empty(batch, heads, count, values.shape[-1])
    total = queries.new_empty(batch, heads, count, dtype=torch.float32)
    tile = max(1, _TILE_BYTES // (4 * batch * heads * keys.shape[2]))
    flat_keys = keys.flatten(0, 1).mT
    for start in range(0, count, tile):
        stop = min(start + tile, count)
        rows = queries[:, :, start:stop].reshape(batch * groups, -1, size)
        scores = _float32_products(rows, flat_keys).mul_(kernel.scale)
        scores = scores.view(batch, groups, heads // groups, stop - start, -1)
        if kernel.softcap is not None:
            scores = torch.tanh_(scores.div_(kernel.softcap)).mul_(kernel.softcap)
        if mask is not None:
            scores += mask[:, :, None, start:stop]
        if causal:
            scores += _causal_mask(start, stop, keys.shape[2], queries.device)
        lse = scores.logsumexp(-1, keepdim=True)
        weights = scores.sub_(lse).exp_().to(values.dtype)
        out[:, :, start:stop] = (weights @ values[:, :, None]).flatten(1, 2)
        total[:, :, start:stop] = lse.squeeze(-1).flatten(1, 2)
    return out, total


def _float32_products(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` for [n, r, e] and [n, e, c], whose result is not rounded to half precision."""
    if left.dtype == torch.float32:
        return torch.bmm(left, right)
    if left.device.type == "cuda":
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())


def _causal_mask(start: int, stop: int, keys: int, device: torch.device) -> Tensor:
    rows = torch.arange(start, stop, device=device)[:, None]
    hidden = torch.arange(keys, device=device)[None] > rows
    return torch.zeros(hidden.shape, device=device).masked_fill_(hidden, MASKED)
