"""Who sees whom in a row of several sequences, in the form that an architecture's attention layers take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metashot.base.errors import ConfigError
from metashot.engine.models.own_head import logits_at

FULL, SLIDING = "full_attention", "sliding_attention"
_KNOWN = {FULL, SLIDING}
_TOLERANCE = 1e-2
_LONGEST_WINDOW = 256
"""A trial row is longer than the window of a layer up to here; in a longer one the mask is only tried inside the window."""


def attention_inputs(model: nn.Module, visible: Tensor | None, positions: Tensor | None) -> dict[str, Any]:
    """The arguments `attention_mask` and `position_ids`; none of them where rows are plain causal ones.

    A layer with a sliding window sees the last `window` positions of what is visible, as it does in a row of its own.

    Args:
        model: whose layers.
        visible: [rows, tokens (from), tokens (to)], or None.
        positions: [rows, tokens], or None to count from the left.

    Raises:
        ValueError: layers of a kind whose mask is not known here, such as Llama 4's chunks of absolute positions.
    """
    if visible is None:
        return {}
    if positions is None:
        positions = torch.arange(visible.shape[-1], device=visible.device).expand(visible.shape[:2])
    causal: Any = model
    config = causal.config.get_text_config()
    kinds = layer_kinds(config)
    if odd := sorted(kinds - _KNOWN):
        raise ValueError(f"no mask of several sequences for layers of kind {odd[0]}")
    masks = {
        kind: _additive(visible, positions, _window(config, kind), causal.dtype) for kind in sorted(kinds)
    }
    mask: Any = masks if len(masks) > 1 else next(iter(masks.values()))
    return {"attention_mask": mask, "position_ids": positions}


def layer_kinds(config: Any) -> set[str]:
    """The kinds of layers of a text config, named as transformers names them."""
    listed = {str(kind) for kind in getattr(config, "layer_types", None) or ()}
    # Without a list, a window that is set holds for every layer (Mistral).
    return listed or {SLIDING if getattr(config, "sliding_window", None) else FULL}


def _window(config: Any, kind: str) -> int | None:
    return int(config.sliding_window) if kind == SLIDING else None


def _additive(visible: Tensor, positions: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """[rows, 1, tokens, tokens]: 0 where a token may look and very negative elsewhere."""
    if window is not None:
        distance = positions[:, :, None] - positions[:, None, :]
        visible = visible & (distance < window)
    hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return hidden.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def check_rows_of_several(model: nn.Module, key: str) -> None:
    """Try two short sequences in one row, and refuse a model for which they differ from rows of their own.

    A mask keeps sequences apart in attention, but not in a convolution, a recurrent state, or positions that the
    model takes from the mask itself (BLOOM, Mamba).

    Args:
        model: in any mode; its weights are not touched.
        key: the config key that asks for rows of several sequences.

    Raises:
        ConfigError: the numbers differ, or the model does not take such a mask.
    """
    causal: Any = model
    config = causal.config.get_text_config()
    vocabulary, window = config.vocab_size, getattr(config, "sliding_window", None) or 0
    length = 3 + min(int(window), _LONGEST_WINDOW)
    ids = torch.arange(1, 2 * length + 1, device=causal.device).remainder(vocabulary)
    row = torch.arange(length, device=causal.device)
    block = torch.block_diag(torch.ones(length, length), torch.ones(length, length)).tril().bool()
    trained, zeros = model.training, torch.zeros_like(row)
    model.eval()
    try:
        inputs = attention_inputs(model, block[None].to(causal.device), torch.cat([row, row])[None])
        with torch.no_grad():
            alone = logits_at(model, zeros, row, input_ids=ids[None, length:])
            packed = logits_at(model, zeros, row + length, input_ids=ids[None], **inputs)
        difference = float((packed - alone).abs().max()) / max(1.0, float(alone.abs().max()))
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError):
        difference = float("inf")
    finally:
        model.train(trained)
    if not difference < _TOLERANCE:
        raise ConfigError(
            key,
            f"several sequences in a row would see each other in {type(model).__name__}",
            "use trainer.batching=bucketed and trainer.option_weight=0",
        )
