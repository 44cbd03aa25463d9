"""GPT-2's GELU in one pass over its input, for scoring and for training."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.activations import GELUTanh, NewGELUActivation


@contextmanager
def gelu_in_place(model: nn.Module) -> Generator[None]:
    """Inside, GPT-2's GELU takes one pass over its input instead of eight; the same to the last bits but one.

    It writes over its input, so nothing can be trained.
    """
    changed = [module for module in model.modules() if isinstance(module, NewGELUActivation)]
    try:
        for module in changed:
            module.forward = _gelu_in_place
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)


def _gelu_in_place(input: Tensor) -> Tensor:
    return torch.ops.aten.gelu_(input, approximate="tanh")


def fuse_gelu(model: nn.Module) -> None:
    """Put PyTorch's fused form of GPT-2's GELU in the place of the written-out one.

    Values and gradients are the same up to rounding. It takes one pass, and of what it computes only its input is kept
    for the backward pass, a quarter of what the written-out form keeps.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())
