"""Tensors that lie in shards over ranks (FSDP2): gathered one at a time, so that no process ever holds a whole model.

What is written is an ordinary safetensors file of whole tensors, so any number of processes reads it.
Source of the file format: the safetensors documentation (8 bytes of header length, JSON header, data).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

Gather = Callable[[Tensor], Tensor]

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded over ranks, on the CPU if it was (every rank must ask)."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether the part of a tensor that this process holds has no NaN and no infinity."""
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return not own.is_floating_point() or bool(own.isfinite().all())


def memory_of(tensor: Tensor) -> int:
    """Where its data lie in this process; tied tensors share it."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr()


def sharded_like(tensor: Tensor, other: Tensor) -> Tensor:
    """This rank's part of `tensor`, which every rank holds, if `other` is sharded; no communication."""
    if not isinstance(other, DTensor) or isinstance(tensor, DTensor):
        return tensor
    placed = tensor.to(other.device, other.dtype)
    return distribute_tensor(placed, other.device_mesh, other.placements, src_data_rank=None)


def sharded_among(tensors: Iterable[Tensor]) -> list[DTensor]:
    """Those that have to be gathered, in order."""
    return [tensor for tensor in tensors if isinstance(tensor, DTensor)]


class Gathering:
    """The collective part of a save: every rank gathers the same tensors in the same order, the first one uses them.

    Args:
        tensors: those that have to be gathered, in the order in which the first rank will ask for them.
    """

    def __init__(self, tensors: Sequence[DTensor]) -> None:
        self._waiting = list(tensors)

    def __call__(self, tensor: Tensor) -> Tensor:
        """`tensor` as a whole.

        Raises:
            ValueError: asked out of order, which would mix tensors up between ranks.
        """
        if not isinstance(tensor, DTensor):
            return tensor
        expected = self._waiting.pop(0) if self._waiting else None
        if expected is None or expected.shape != tensor.shape:
            raise ValueError("sharded tensors are gathered in their order, each once")
        return whole(tensor)

    def finish(self) -> None:
        """Take part in what was not asked for: on all ranks but the first, or where the first could not write."""
        while self._waiting:
            whole(self._waiting.pop(0))


def write_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str], gather: Gather
) -> None:
    """Write `tensors` as whole ones, one after the other.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    place = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + size],
        }
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            stream.write(
                gather(tensor).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
