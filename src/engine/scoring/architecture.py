"""What the engine needs of a model family: its layers on flat rows, without the attention in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from metashot.engine.scoring.attention import Kernel
from metashot.engine.scoring.vocabulary import Head

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each [rows, 1, rotated size]; empty for absolute positions."""


class Architecture(Protocol):
    """A decoder as the engine walks it; t rows, d residual width, h query heads, g key heads, e head size."""

    layers: int

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Residual stream before the first layer, [t, d]."""
        ...

    def rotation(self, hidden: Tensor, positions: Tensor) -> Rotation:
        """Rotary factors of the rows."""
        ...

    def window(self, layer: int) -> int | None:
        """Tokens that a query sees, itself included, or None for all."""
        ...

    def kernel(self, layer: int) -> Kernel:
        """Constants of the layer's attention."""
        ...

    def attention_input(self, layer: int, hidden: Tensor) -> Tensor:
        """The normalized rows that the projections read, [t, d]."""
        ...

    def keys_values(self, layer: int, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Keys (rotated) and values, each [t, g, e]."""
        ...

    def queries(self, layer: int, normed: Tensor, rotation: Rotation) -> Tensor:
        """Queries (rotated), [t, h, e]."""
        ...

    def finish(self, layer: int, hidden: Tensor, normed: Tensor, attention: Tensor) -> Tensor:
        """The residual stream after output projection and MLP, [t, d]."""
        ...

    def final_norm(self, hidden: Tensor) -> Tensor:
        """What the vocabulary projection reads, [t, d]."""
        ...

    def head(self) -> Head:
        """The vocabulary projection."""
        ...


Factory = Callable[[PreTrainedModel], Architecture]


def linear_head(model: PreTrainedModel, softcap: float | None = None) -> Head:
    """The head of a model whose output embedding is a linear layer."""
    output: Any = model.get_output_embeddings()
    return Head(output.weight, output.bias, softcap)


def fused(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same activation, in place and in one pass where it is GPT-2's GELU (eight passes in transformers)."""
    if isinstance(activation, NewGELUActivation):
        return lambda inner: torch.ops.aten.gelu_(inner, approximate="tanh")
    return activation


def no_rotation(hidden: Tensor) -> Rotation:
    """The rotation of a model with absolute positions."""
    empty = hidden.new_empty(len(hidden), 0)
    return empty, empty


def rotate_halves(rows: Tensor, rotation: Rotation) -> Tensor:
    """Rotate feature i with feature i + size / 2 (Llama, NeoX); rows [t, h, e]."""
    cosine, sine = rotation
    one, other = rows.chunk(2, dim=-1)
    return rows * cosine + torch.cat((-other, one), dim=-1) * sine


def rotate_pairs(rows: Tensor, rotation: Rotation) -> Tensor:
    """Rotate feature 2 i with feature 2 i + 1 (GPT-J) in the first features; rows [t, h, e]."""
    cosine, sine = rotation
    width = 2 * cosine.shape[-1]
    even, odd = rows[..., :width:2], rows[..., 1:width:2]
    turned = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1).flatten(-2)
    return torch.cat((turned, rows[..., width:]), dim=-1)
