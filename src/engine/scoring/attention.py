"""Attention in a cascade: partial attention over parts of the keys, merged by their log-sum-exp.

For key sets A and B with partial results o_A, o_B and log-sum-exps l_A, l_B of the scores, attention over
both is `o_A + w (o_B - o_A)` with `w = sigmoid(l_B - l_A)`, and its log-sum-exp is `logaddexp(l_A, l_B)`.
No cache is copied or expanded, and no part needs to know the others.

A sink, one more key with score s and value zero, only scales the result by `sigmoid(l - s)`.

Shapes: b clusters, h query heads, g key heads, q queries, k keys, e head size, v head size of the values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metashot.engine.scoring.kernels import Kernel, partial_attention
from metashot.engine.scoring.layout import MASKED, BatchLayout, Block, Clusters


def cascade_attention(
    layout: BatchLayout,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    path: tuple[Tensor, Tensor],
    kernel: Kernel,
) -> Tensor:
    """Attention of the selected rows over their ancestors in the batch and on the path.

    Args:
        layout: which attends to which.
        queries: [selected, h, e].
        keys: [rows, g, e].
        values: [rows, g, v].
        path: keys [at least its length, g, e] and values [the same, g, v] of the path.
        kernel: the layer's constants.

    Returns:
        [selected, h, v].
    """
    heads, size = queries.shape[1], values.shape[2]
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
    if kernel.sinks is not None:
        out.mul_(torch.sigmoid(total - kernel.sinks.float()[:, None])[..., None])
    return out.transpose(0, 1).to(queries.dtype).contiguous()


def _heads_first(rows: Tensor) -> Tensor:
    return rows[None].transpose(1, 2)  # [n, h, e] -> [1, h, n, e]


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
    """Partial attention of the rows in clusters: [h, rows, v], [h, rows]."""
    part, part_total = partial_attention(
        queries[clusters.queries].transpose(1, 2),  # [b, q, h, e] -> [b, h, q, e]
        keys[clusters.keys].transpose(1, 2),  # [b, k, g, e] -> [b, g, k, e]
        values[clusters.keys].transpose(1, 2),  # [b, k, g, v] -> [b, g, k, v]
        kernel,
        mask=clusters.mask,
    )
    part = part.transpose(0, 1).flatten(1, 2)[
        :, clusters.filled
    ]  # [b, h, q, v] -> [h, b * q, v] -> [h, rows, v]
    return part, part_total.transpose(0, 1).flatten(1, 2)[:, clusters.filled]


def merge_(out: Tensor, total: Tensor, part: Tensor, part_total: Tensor) -> tuple[Tensor, Tensor]:
    """Merge a partial result into `out` [..., e] and `total` [...], both float32, in place."""
    weight = torch.sigmoid(part_total - total)
    out.lerp_(part.float(), weight[..., None])
    torch.logaddexp(total, part_total, out=total)
    return out, total
