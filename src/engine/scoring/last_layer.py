"""The last layer computes keys and values of all rows, and everything else of the rows that are read.

The layer's forward pass runs twice: on all rows until its attention is called, and on the rows that are read to
its end, where its attention gets the keys and values of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_WORTHWHILE_SHARE = 0.75
"""With more of the rows read than this, computing them twice costs what leaving out the others saves."""


class KeysKnownError(Exception):
    """Raised from the attention of the first time, to leave the layer there."""


class TwoPassAttention(Protocol):
    """Attention that can be asked for keys and values first, and for some rows' queries over them then."""

    def expect_keys(self) -> None:
        """The next call gives keys and values: raise `KeysKnownError`."""
        ...

    def expect_queries(self, rows: Tensor) -> None:
        """The next call gives queries of these rows only."""
        ...


def find_last_layer(model: PreTrainedModel, calls: int) -> nn.Module | None:
    """The last of a list of `calls` layers, or None if the model has no such list (or more than one)."""
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == calls and calls > 1]
    return found[0][-1] if len(found) == 1 else None


@contextmanager
def reading_only(layer: nn.Module, attention: TwoPassAttention, rows: Tensor, total: int) -> Generator[None]:
    """Inside, `layer` gives the states [1, read, d] of `rows` [read] when called on [1, total, d].

    Args:
        layer: a decoder layer whose forward pass takes the states first.
        attention: the handler of its attention.
        rows: the rows to read; none or nearly all of them leave the layer as it is.
        total: all rows.
    """
    if not 0 < len(rows) <= _WORTHWHILE_SHARE * total:
        yield
        return
    before = vars(layer).get("forward")
    layer.forward = _in_two_passes(layer.forward, attention, rows, total)
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before


def _in_two_passes(
    forward: Callable[..., Any], attention: TwoPassAttention, rows: Tensor, total: int
) -> Callable[..., Any]:
    def run(hidden: Tensor, *args: Any, **more: Any) -> Any:
        if hidden.shape[:2] != (1, total):
            return forward(hidden, *args, **more)
        attention.expect_keys()
        with suppress(KeysKnownError):
            forward(hidden, *args, **more)
        attention.expect_queries(rows)
        args, more = _cut(args, rows, total), {name: _cut(value, rows, total) for name, value in more.items()}
        return forward(_cut(hidden, rows, total), *args, **more)

    return run


def _cut(value: Any, rows: Tensor, total: int) -> Any:
    """The rows of every tensor [batch, total, ...] in an argument."""
    if isinstance(value, tuple):
        return tuple(_cut(part, rows, total) for part in value)
    if torch.is_tensor(value) and value.dim() >= 2 and value.shape[1] == total:
        return value[:, rows.to(value.device)]
    return value
