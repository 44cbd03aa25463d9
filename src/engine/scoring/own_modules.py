"""Attention modules that bypass transformers' interface."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

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
            if constants is not None:  # Private: GPT-2-like modules of transformers have no other seam
                module._attn = _through(attention, module, *constants(module))  # pyright: ignore[reportArgumentType]
                changed.append(module)
        yield
    finally:
        for module in changed:  # Private: see above
            del module._attn


def _through(attention: Attention, module: nn.Module, scale: float, window: int | None) -> Attention:
    def attend(query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None) -> tuple[Tensor, None]:
        out, _ = attention(module, query, key, value, None, scaling=scale, sliding_window=window)
        return out.transpose(1, 2), None

    return attend
