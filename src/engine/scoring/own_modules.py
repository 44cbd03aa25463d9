"""Attention modules that bypass transformers' interface.

A bias that falls linearly with distance (ALiBi, Press et al. 2022) needs no kernel of its own: slope times the key's
position differs from minus slope times the distance by a constant of the query, which the softmax takes out. So the
position is one more entry of each key, and the slope one more of each query.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

Attention = Callable[..., tuple[Tensor, None]]
"""An attention function as in transformers' registry, giving [1, t, h, e]."""
_DIGIT = 256
"""Half precision knows whole numbers up to this one exactly."""


@contextmanager
def own_attention(model: nn.Module, attention: Attention) -> Generator[None]:
    """Inside, modules that do their attention themselves call `attention`.

    Args:
        model: called inside on `position_ids` [1, t], by name.
        attention: does their attention.
    """
    changed: list[tuple[nn.Module, str, Any]] = []
    positions = _Positions()
    watch = model.register_forward_pre_hook(positions.see, with_kwargs=True)
    try:
        for module in model.modules():
            own = _OWN.get(type(module).__name__)
            if own is not None:
                name, make = own
                changed.append((module, name, vars(module).get(name)))
                setattr(module, name, make(module, attention, positions))
        yield
    finally:
        watch.remove()
        for module, name, before in changed:
            delattr(module, name)
            if before is not None:
                setattr(module, name, before)


class _Positions:
    """Those of the rows that the model runs on, [t]."""

    def __init__(self) -> None:
        self.rows = torch.zeros(0)

    def see(self, module: nn.Module, args: Any, more: dict[str, Any]) -> None:
        del module, args
        self.rows = more["position_ids"][0]

    def biased(self, query: Tensor, key: Tensor, slopes: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Queries [1, h, t, e + 2] and keys alike, whose products times `scale` have slope [h] times position more."""
        # The last layer's second time has the rows that are read only; its keys are not looked at.
        rows = self.rows[: key.shape[2]].to(key.device)
        digits = torch.stack([rows // _DIGIT, rows % _DIGIT], dim=-1).to(key.dtype)
        factors = torch.stack([_DIGIT * slopes, slopes], dim=-1).to(query) / scale
        wide_query, wide_key = pad(query, (0, 2)), pad(key, (0, 2))
        wide_query[..., -2:], wide_key[..., -2:] = factors[:, None], digits
        return wide_query, wide_key


def _heads(
    constants: Callable[[Any], tuple[float, int | None]],
) -> Callable[[Any, Attention, _Positions], Callable[..., Any]]:
    """`_attn(query, key, value, attention_mask)`, with the scale and window of its module."""

    def make(module: Any, attention: Attention, _: _Positions) -> Callable[..., Any]:
        scale, window = constants(module)

        def attend(
            query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None
        ) -> tuple[Tensor, None]:
            out, _ = attention(module, query, key, value, None, scaling=scale, sliding_window=window)
            return out.transpose(1, 2), None

        return attend

    return make


def _bloom(module: Any, attention: Attention, positions: _Positions) -> Callable[..., Any]:
    pair = torch.ones(1, 2, device=module.dense.weight.device)
    slopes = sys.modules[type(module).__module__].build_alibi_tensor(pair, module.num_heads, torch.float32)[
        :, 0, 1
    ]

    def forward(
        hidden_states: Tensor, residual: Tensor, *, attention_mask: Any, **_: Any
    ) -> tuple[Tensor, None]:
        # Private: how heads stand in the fused projection is nowhere else
        query, key, value = module._reshape(module.query_key_value(hidden_states))
        query, key = positions.biased(query, key, slopes, module.inv_norm_factor)
        out, _none = attention(module, query, key, value, attention_mask, scaling=module.inv_norm_factor)
        return residual + module.dense(out.flatten(2)), None

    return forward


def _mpt(module: Any, attention: Attention, positions: _Positions) -> Callable[..., Any]:
    def forward(
        hidden_states: Tensor, position_bias: Tensor, *, attention_mask: Any, **_: Any
    ) -> tuple[Tensor, None]:
        mixed = module.Wqkv(hidden_states)
        if module.clip_qkv:
            mixed = mixed.clamp(min=-module.clip_qkv, max=module.clip_qkv)
        query, key, value = (
            part.unflatten(2, (module.n_heads, module.head_dim)).transpose(1, 2)
            for part in mixed.chunk(3, dim=2)
        )
        slopes = position_bias[:, 0, -1] - position_bias[:, 0, -2]
        query, key = positions.biased(query, key, slopes, module.softmax_scale)
        out, _none = attention(module, query, key, value, attention_mask, scaling=module.softmax_scale)
        return module.out_proj(out.flatten(2)), None

    return forward


def _falcon(module: Any, attention: Attention, _: _Positions) -> Callable[..., Any]:
    """Of a Falcon without ALiBi: those with it round their biases to bfloat16, and fail before they come here."""

    def forward(
        hidden_states: Tensor,
        *,
        attention_mask: Any,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> tuple[Tensor, None]:
        # Private: how heads stand in the fused projection is nowhere else
        split = module._split_heads(module.query_key_value(hidden_states))
        query, key, value = (part.transpose(1, 2) for part in split)
        query, key = sys.modules[type(module).__module__].apply_rotary_pos_emb(
            query, key, *position_embeddings
        )
        out, _none = attention(module, query, key, value, attention_mask)
        return module.dense(out.flatten(2)), None

    return forward


_OWN: dict[str, tuple[str, Callable[[Any, Attention, _Positions], Callable[..., Any]]]] = {
    # Private: these modules of transformers have no other seam.
    "GPTJAttention": ("_attn", _heads(lambda module: (1 / float(module.scale_attn), None))),
    "CodeGenAttention": ("_attn", _heads(lambda module: (1 / float(module.scale_attn), None))),
    "GPTNeoSelfAttention": (
        "_attn",
        _heads(
            lambda module: (
                1.0,
                module.config.window_size
                if module.config.attention_layers[module.layer_id] == "local"
                else None,
            )
        ),
    ),
    "BloomAttention": ("forward", _bloom),
    "FalconAttention": ("forward", _falcon),
    "MptAttention": ("forward", _mpt),
}
"""What takes the place of which method, by class."""
