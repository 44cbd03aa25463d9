"""Attention of any transformers model, handed to the engine while the model runs its own forward pass.

Models that call transformers' attention interface look their attention function up in the config, by name, at
every call; so do the functions that build their masks. `attention_handled_by` puts the engine's names there for
a while. The mask function then gives no tensor but a marker with the window that the model asked for, which
travels through the model to the attention function in the place of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from metashot.engine.models.activations import gelu_in_place
from metashot.engine.scoring.attention import Kernel
from metashot.engine.scoring.own_modules import own_attention

NAME = "metashot_shared_prefixes"
"""How the attention function and the mask function are called in transformers' registries."""


class UnsharedAttentionError(Exception):
    """The model's attention is of a kind that the engine does not do; the words say which."""


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One layer's attention over t rows.

    Attributes:
        queries: [t, h, e], with positions applied.
        keys: [t, g, e], h being a multiple of g.
        values: [t, g, v]; v is less than e in multi-head latent attention.
        kernel: scale, soft cap and sinks.
        window: tokens that a query sees, itself included, or None for all.
        allowed: `allowed(0, 0, query index, key index)` is the mask that the model asked for, as transformers
            defines it; None if it asked for none.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    kernel: Kernel
    window: int | None
    allowed: Callable[..., Any] | None = None


class AttentionHandler(Protocol):
    """Does the attention of all layers while a model runs."""

    def attend(self, call: AttentionCall) -> Tensor:
        """What the rows read, [t, h, v]."""
        ...


@dataclass(frozen=True, slots=True)
class MaskMarker:
    """What the model asked of its mask, in the mask's place."""

    window: int | None
    allowed: Callable[..., Any]
    shape: tuple[int, ...] = ()

    def to(self, *_: Any) -> MaskMarker:
        """What was asked stays so in any dtype and on any device."""
        return self


_handler: ContextVar[AttentionHandler | None] = ContextVar("attention_handler", default=None)


@contextmanager
def attention_handled_by(model: PreTrainedModel, handler: AttentionHandler) -> Generator[None]:
    """Inside, `model` gives its attention to `handler`; afterwards it is as before, also after an error.

    Args:
        model: called inside on `input_ids` [1, t] and `position_ids` [1, t], without attention mask and cache.
        handler: does the attention.
    """
    configs = _configs(model)
    # Private: the public `set_attn_implementation` refuses models that read the name but were not declared to, and
    # sets one name for parts that have different ones to go back to.
    names = [config._attn_implementation for config in configs]
    token = _handler.set(handler)
    try:
        with ExitStack() as stack:
            stack.enter_context(gelu_in_place(model))
            stack.enter_context(own_attention(model, _attention))
            if "forward" in vars(model):  # compiled: the engine's shapes change at every batch
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for config in configs:  # Private: see above
                config._attn_implementation_internal = NAME
            yield
    finally:
        _handler.reset(token)
        for config, name in zip(configs, names, strict=True):  # Private: see above
            config._attn_implementation_internal = name


def _configs(model: PreTrainedModel) -> list[Any]:
    """Every config object that a module of the model may ask for its attention's name."""
    found: dict[int, Any] = {}
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):  # Private: see above
            found[id(config)] = config
            for key in config.sub_configs:
                part = getattr(config, key, None)
                if part is not None:
                    found[id(part)] = part
    return list(found.values())


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """The attention function in transformers' registry; arguments as there, the rest has no bearing here."""
    handler = _handler.get()
    assert handler is not None
    allowed = None
    if isinstance(attention_mask, MaskMarker):
        sliding_window, allowed = attention_mask.window, attention_mask.allowed
    elif attention_mask is not None:
        raise UnsharedAttentionError("it makes its attention masks itself")
    if more.get("position_bias") is not None:
        raise UnsharedAttentionError("its attention adds a position bias")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise UnsharedAttentionError(f"its attention is not over the rows given (query {list(query.shape)})")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    # GPT-J rotates in float32 whatever the dtype of its values.
    dtype = _weight_dtype(module, query.dtype)
    rows = [part[0].transpose(0, 1).to(dtype) for part in (query, key, value)]
    call = AttentionCall(*rows, kernel=Kernel(scale, softcap, s_aux), window=sliding_window, allowed=allowed)
    return handler.attend(call)[None].to(value.dtype), None


def _weight_dtype(module: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """In which precision an attention module multiplies: that of its weights, or of its states if they have none."""
    weights = next((one.dtype for one in module.parameters() if one.is_floating_point()), dtype)
    return weights if weights.itemsize < dtype.itemsize else dtype


def _mask(
    *_: Any, mask_function: Callable[..., Any], local_size: int | None = None, **_more: Any
) -> MaskMarker:
    """The mask function in transformers' registry."""
    return MaskMarker(local_size, mask_function)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
