"""Half-precision weights with float32 between their products: states, norms, log-sum-exp.

What rounds most in bfloat16 is the residual stream, whose steps get lost in its size, and the logits, of which one of
20 has a grid of 0.06. Here only the operands and results of matrix products, attention's included, are in half
precision; all else is float32.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from metashot.engine.models.own_head import output_embedding
from metashot.engine.scoring.vocabulary import float32_product

HALF = (torch.bfloat16, torch.float16)
_NORMS = (nn.LayerNorm, nn.RMSNorm)
_PROBED_TOKENS = 16
_LEAST_CORRELATION = 0.9
"""Of the logits before and after; rounding alone leaves 0.98 and more, whatever the tokens."""

_found: WeakKeyDictionary[nn.Module, dict[torch.dtype, bool]] = WeakKeyDictionary()


@contextmanager
def float32_between_products(model: PreTrainedModel) -> Generator[None]:
    """Inside, a model in half precision keeps its states in float32, where its modules allow it; nothing else changes."""
    with _widened(model) if keeps_float32_states(model) else nullcontext():
        yield


def keeps_float32_states(model: PreTrainedModel) -> bool:
    """Whether a model in half precision runs with states in float32; tried once."""
    known = _found.setdefault(model, {})
    if model.dtype not in known:
        known[model.dtype] = model.dtype in HALF and _suits(model)
    return known[model.dtype]


@torch.inference_mode()
def _suits(model: PreTrainedModel) -> bool:
    """Whether the model runs with float32 states and says nearly the same: found out by trying."""
    ids = torch.arange(1, _PROBED_TOKENS + 1, device=model.device)[None]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    run: Any = model
    before = run(**inputs, use_cache=False).logits.float()
    try:
        with _widened(model):
            after = run(**inputs, use_cache=False).logits
    except (RuntimeError, TypeError):  # a module that multiplies outside of the usual ones
        return False
    both = torch.stack([before.flatten(), after.flatten()])
    return after.dtype == torch.float32 and bool(torch.corrcoef(both)[0, 1] >= _LEAST_CORRELATION)


@contextmanager
def _widened(model: PreTrainedModel) -> Generator[None]:
    head = output_embedding(model)
    with ExitStack() as stack:
        for module in model.modules():
            matrices = [one for one in module.parameters(recurse=False) if one.ndim > 1 and one.dtype in HALF]
            if module is head and type(head) is nn.Linear:
                _exchange(stack, module, lambda states: _logits(head, states))
            elif matrices:
                _narrow(stack, module, matrices[0].dtype)
            elif isinstance(module, _NORMS):
                _exchange(stack, module, lambda states, norm=module: _normalized(norm, states))
        yield


def _narrow(stack: ExitStack, module: nn.Module, dtype: torch.dtype) -> None:
    """A module that owns matrices reads half precision, and what it gives becomes float32."""

    def before(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        return tuple(_to(one, dtype) for one in arguments), {
            key: _to(one, dtype) for key, one in named.items()
        }

    def after(_: nn.Module, __: tuple[Any, ...], given: Any) -> Any:
        wide = tuple(_to(one, torch.float32) for one in (given if isinstance(given, tuple) else (given,)))
        return wide if isinstance(given, tuple) else wide[0]

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(after).remove)


def _to(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _exchange(stack: ExitStack, module: nn.Module, forward: Any) -> None:
    if "forward" not in vars(module):
        module.forward = forward
        stack.callback(vars(module).pop, "forward")


def _normalized(norm: Any, states: Tensor) -> Tensor:
    weight, bias = (
        None if one is None else one.float() for one in (norm.weight, getattr(norm, "bias", None))
    )
    if isinstance(norm, nn.LayerNorm):
        return functional.layer_norm(states.float(), norm.normalized_shape, weight, bias, norm.eps)
    return functional.rms_norm(states.float(), norm.normalized_shape, weight, norm.eps)


def _logits(head: Any, states: Tensor) -> Tensor:
    flat = float32_product(states.flatten(0, -2), head.weight)
    return (flat if head.bias is None else flat + head.bias).unflatten(0, states.shape[:-1])
