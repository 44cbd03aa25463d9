"""How many rows fit a memory budget, and where to cut the trie into batches."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from metashot.engine.scoring.plan import ModelSize
from metashot.engine.scoring.precision import HALF
from metashot.engine.scoring.trie import TokenTrie

_logger = logging.getLogger(__name__)

_CPU_BUDGET_BYTES = 256 << 20
_CPU_ROWS = 2048
_GPU_ROWS = 16384
_CPU_HALF_ROWS = 512
_GPU_HALF_ROWS = 4096
_FIXED_BYTES = 32 << 20


def rows_for_budget(
    config: Any, dtype: torch.dtype, device: torch.device, budget: int | None, depth: int
) -> int:
    """Rows of a batch whose activations, beside a path cache of `depth` tokens, stay inside the budget.

    In half precision their number is fixed whatever the budget, since products of another shape round in another way,
    and only a lack of memory lowers it. So it is for a config that tells its sizes in words of its own: an estimate must
    not decide how a model is scored.

    Args:
        config: the model's transformers config.
        dtype: of the weights, and of the path cache.
        device: where they are.
        budget: bytes, or None: 256 MiB on a CPU, half of what is free on a GPU.
        depth: longest path in tokens.
    """
    fixed = _GPU_HALF_ROWS if device.type == "cuda" else _CPU_HALF_ROWS
    if dtype in HALF:
        return fixed
    try:
        size = ModelSize.of(config)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        _logger.info("the sizes of %s are not known: batches of %d tokens", type(config).__name__, fixed)
        return fixed
    if budget is None:
        budget = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _CPU_BUDGET_BYTES
    cache = 2 * size.layers * depth * size.key_value_width * dtype.itemsize
    rows = (budget - cache - _FIXED_BYTES) // bytes_per_row(size, dtype)
    return int(min(max(rows, 32), _GPU_ROWS if device.type == "cuda" else _CPU_ROWS))


def bytes_per_row(size: ModelSize, dtype: torch.dtype) -> int:
    """Activation memory that one row needs at the widest point of a layer."""
    attention = 2 * size.attention_width + 2 * size.key_value_width
    inner = (3 if size.gated else 2) * size.inner
    float_parts = 4 * 2 * (size.attention_width + 2)
    # Experts work on copies of the states, one in and one out for each that a token is sent to.
    states = 4 * size.hidden + 2 * size.hidden * (size.experts_per_token - 1)
    # States between products are float32 where weights are in half precision.
    return max(4, dtype.itemsize) * (states + attention + inner) + float_parts


def next_cut(trie: TokenTrie, start: int, rows: int) -> int:
    """Where the batch from `start` on ends: batches of even size, cut at a branch near the root if close.

    A cut at a shallow row keeps whole subtrees together and leaves a short path to carry on.
    """
    left = trie.rows - start
    if left <= rows:
        return trie.rows
    target = -(-left // -(-left // rows))
    window = max(1, target // 8)
    candidates = trie.depths[start + target - window + 1 : start + target + 1]
    # The last of the shallowest rows opens the next batch.
    shallowest = len(candidates) - 1 - int(np.argmin(candidates[::-1]))
    return start + target - window + 1 + shallowest
