"""What a loop needs of `torch.distributed`; every function is a no-op in a single process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process' number, 0 without a process group."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if _active() else 1


def barrier() -> None:
    """Wait for all processes."""
    if _active():
        dist.barrier()


def max_over_ranks(value: int, device: torch.device) -> int:
    """The largest `value` of all processes (used to agree on stopping)."""
    if not _active():
        return value
    box = torch.tensor([value], device=device)
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return int(box.item())


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """Element-wise sum over all processes, in float64 where the device has it."""
    if not _active():
        return values
    dtype = torch.float32 if device.type == "mps" else torch.float64
    box = torch.tensor(values, device=device, dtype=dtype)
    dist.all_reduce(box)
    return box.tolist()


def gather_objects(value: Any) -> list[Any]:
    """`value` of every process, in rank order, on every process."""
    if not _active():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered
