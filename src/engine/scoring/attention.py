"""Attention in a cascade: partial attention over parts of the keys, merged by their log-sum-exp.

For key sets A and B with partial results o_A, o_B and log-sum-exps l_A, l_B of the scores, attention over
both is `o_A + w (o_B - o_A)` with `w = sigmoid(l_B - l_A)`, and its log-sum-exp is `logaddexp(l_A, l_B)`.
No cache is copied or expanded, and no part needs to know the others.

Shapes: b clusters, h query heads, g key heads, q queries, k keys, e head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metashot.engine.scoring.layout import MASKED, Block, Clusters, Layout

_TILE_BYTES = 1 << 24
_FUSED_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Constants of one layer's attention.

    Attributes:
        scale: factor on the scores.
        softcap: scores become `softcap * tanh(scores / softcap)`, as in Gemma 2.
    """

    scale: float
    softcap: float | None = None


def cascade_attention(
    layout: Layout, queries: Tensor, keys: Tensor, values: Tensor, path: tuple[Tensor, Tensor], kernel: Kernel
) -> Tensor:
    """Attention of the selected rows over their ancestors in the batch and on the path.

    Args:
        layout: which attends to which.
        queries: [selected, h, e].
        keys: [rows, g, e].
        values: [rows, g, e].
        path: keys and values of the path, each [at least its length, g, e].
        kernel: the layer's constants.

    Returns:
        [selected, h * e].
    """
    heads, size = queries.shape[1:]
    out = queries.new_empty(heads, layout.selected, size, dtype=torch.float32)
    total = queries.new_full((heads, layout.selected), MASKED, dtype=torch.float32)
    for clusters in layout.clusters:
        part, part_total = _cluster_attention(clusters, queries, keys, values, kernel)
        out[:, clusters.rows] = part.float()
        total[:, clusters.rows] = part_total
    for block in layout.blocks:
        source_keys, source_values = path if block.cached else (keys, values)
        part, part_total = partial_attention(
            _heads_first(queries[block.queries]),
            _heads_first(source_keys[block.keys]),
            _heads_first(source_values[block.keys]),
            kernel,
            mask=None if block.mask is None else block.mask[None, None],
            causal=block.causal,
        )
        _add_block(block, out, total, part[0], part_total[0])
    for rectangles in layout.rectangles:
        before = out[:, rectangles.rows], total[:, rectangles.rows]
        merged, merged_total = merge_(*before, *_cluster_attention(rectangles, queries, keys, values, kernel))
        out[:, rectangles.rows] = merged
        total[:, rectangles.rows] = merged_total
    return out.transpose(0, 1).reshape(layout.selected, heads * size).to(queries.dtype)


def _heads_first(rows: Tensor) -> Tensor:
    return rows[None].transpose(1, 2)


def _add_block(block: Block, out: Tensor, total: Tensor, part: Tensor, part_total: Tensor) -> None:
    """Write the rows whose own key this is (they have nothing yet), merge the others."""
    first, last = block.queries.start, block.queries.stop
    middle = first + block.own
    if block.own:
        out[:, first:middle] = part[:, : block.own]
        total[:, first:middle] = part_total[:, : block.own]
    if middle < last:
        merge_(out[:, middle:last], total[:, middle:last], part[:, block.own :], part_total[:, block.own :])


def _cluster_attention(
    clusters: Clusters, queries: Tensor, keys: Tensor, values: Tensor, kernel: Kernel
) -> tuple[Tensor, Tensor]:
    """Partial attention of the rows in clusters: [h, rows, e], [h, rows]."""
    part, part_total = partial_attention(
        queries[clusters.queries].transpose(1, 2),
        keys[clusters.keys].transpose(1, 2),
        values[clusters.keys].transpose(1, 2),
        kernel,
        mask=clusters.mask,
    )
    part = part.transpose(0, 1).flatten(1, 2)[:, clusters.filled]
    return part, part_total.transpose(0, 1).flatten(1, 2)[:, clusters.filled]


def merge_(out: Tensor, total: Tensor, part: Tensor, part_total: Tensor) -> tuple[Tensor, Tensor]:
    """Merge a partial result into `out` [..., e] and `total` [...], both float32, in place."""
    weight = torch.sigmoid(part_total - total)
    out.lerp_(part.float(), weight[..., None])
    torch.logaddexp(total, part_total, out=total)
    return out, total


def partial_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    kernel: Kernel,
    mask: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Softmax attention over some of the keys, and the log-sum-exp of its scores.

    Args:
        queries: [b, h, q, e].
        keys: [b, g, k, e], with h a multiple of g.
        values: [b, g, k, e].
        kernel: the layer's constants.
        mask: None, or [b, 1, q, k] to add to the scores.
        causal: query i sees keys 0..i.

    Returns:
        [b, h, q, e], and float32 [b, h, q].
    """
    if queries.device.type == "cpu" and kernel.softcap is None and queries.dtype in _FUSED_DTYPES:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, 0.0, causal, attn_mask=mask, scale=kernel.scale
        )
    return _tiled_attention(queries, keys, values, kernel, mask, causal)


def _tiled_attention(
    queries: Tensor, keys: Tensor, values: Tensor, kernel: Kernel, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """The same through plain products, a tile of queries at a time; scores and softmax in float32."""
    batch, heads, count, size = queries.shape
    groups = keys.shape[1]
    out = queries.new_empty(batch, heads, count, size)
    total = queries.new_empty(batch, heads, count, dtype=torch.float32)
    tile = max(1, _TILE_BYTES // (4 * batch * heads * keys.shape[2]))
    for start in range(0, count, tile):
        stop = min(start + tile, count)
        grouped = queries[:, :, start:stop].reshape(batch, groups, heads // groups, stop - start, size)
        scores = (grouped @ keys[:, :, None].mT).float() * kernel.scale
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


def _causal_mask(start: int, stop: int, keys: int, device: torch.device) -> Tensor:
    rows = torch.arange(start, stop, device=device)[:, None]
    hidden = torch.arange(keys, device=device)[None] > rows
    return torch.zeros(hidden.shape, device=device).masked_fill_(hidden, MASKED)
