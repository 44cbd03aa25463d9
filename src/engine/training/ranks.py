"""What a loop needs of `torch.distributed`; every function is a no-op in a single process."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
import torch.distributed as dist

from metashot.engine.launched import launched_ranks

_SAID = "metashot/said"
_PATIENCE = 15.0
"""Seconds to wait for the first rank to tell a problem that all of them have."""


def join_ranks() -> None:
    """Form the process group of a launch, so that `rank` and `world_size` tell the truth from here on.

    On GPUs every local rank gets its own, and tensors there go over NCCL; all else goes over gloo.
    """
    if launched_ranks() == 1 or _active():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)


def leave_ranks() -> None:
    """Give the process group back."""
    if _active():
        dist.destroy_process_group()


def leads() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def said_by_first(message: str) -> bool:
    """Whether the first rank tells the same problem, so that this one need not; false on the first rank itself."""
    if not _active():
        return False
    store = dist.distributed_c10d._get_default_store()  # pyright: ignore[reportPrivateUsage]
    if leads():
        store.set(_SAID, message)
        return False
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if store.check([_SAID]):
            return store.get(_SAID).decode() == message
        time.sleep(0.05)
    return False


def from_first(value: Any) -> Any:
    """The first rank's `value`, on every rank."""
    if not _active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


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
