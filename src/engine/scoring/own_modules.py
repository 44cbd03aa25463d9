"""Parts of models that need a hand: attention that bypasses transformers' interface, and a slow activation."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

Attention = Callable[..., tuple[Tensor, None]]
"""An attention function as in transformers' registry, giving [1, t, h, e]."""

_OWN_ATTENTION: dict[str, Callable[[Any], tuple[float, int | None]]] = {
    "GPTJAttention": lambda module: (1 / float(module.scale_attn), None),
    "CodeGenAttention": lambda module: (1 / float(module.scale_attn), None),
    "GPTNeoSelfAttention": lambda module: (
        1.0,
        module.config.window_size if module.config.attention_layers[module.layer_id] == "local" else None,
    ),
}
"""Scale and window of the modules with a method `_attn(query, key, value, attention_mask)`, by class."""


@contextmanager
def own_attention(model: nn.Module, attention: Attention) -> Generator[None]:
    """Inside, modules that do their attention themselves call `attention`."""
    changed: list[nn.Module] = []
    try:
        for module in model.modules():
            constants = _OWN_ATTENTION.get(type(module).__name__)
            if constants is not None:
                module._attn = _through(attention, module, *constants(module))  # pyright: ignore[reportArgumentType]
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module._attn


def _through(attention: Attention, module: nn.Module, scale: float, window: int | None) -> Attention:
    def attend(query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None) -> tuple[Tensor, None]:
        out, _ = attention(module, query, key, value, None, scaling=scale, sliding_window=window)
        return out.transpose(1, 2), None

    return attend


@contextmanager
def fused_activations(model: nn.Module) -> Generator[None]:
    """Inside, GPT-2's GELU takes one pass over its input instead of eight; the same to the last bits but one."""
    changed = [module for module in model.modules() if isinstance(module, NewGELUActivation)]
    try:
        for module in changed:
            module.forward = _fused_gelu
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)


def _fused_gelu(input: Tensor) -> Tensor:
    return torch.ops.aten.gelu_(input, approximate="tanh")
