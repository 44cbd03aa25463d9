"""What a loop needs of `torch.distributed`; every function is a no-op in a single process, and imports no torch there."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from metashot.engine.training.launched import launched_ranks

if TYPE_CHECKING:
    import torch

_SAID = "metashot/said"
_PATIENCE = 15.0
"""Seconds to wait for the first rank to tell a problem that all of them have."""


def join_ranks() -> None:
    """Form the process group of a launch, so that `rank` and `world_size` tell the truth from here on.

    On GPUs every local rank gets its own, and tensors there go over NCCL; all else goes over gloo.
    """
    if launched_ranks() == 1 or _group() is not None:
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)


def leave_ranks() -> None:
    """Give the process group back."""
    group = _group()
    if group is not None:
        group.destroy_process_group()


def leads() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def said_by_first(message: str) -> bool:
    """Whether the first rank tells the same problem, so that this one need not; false on the first rank itself."""
    group = _group()
    if group is None:
        return False
    # Private: torch gives out the store of its own start nowhere else, and a second one needs a port of its own.
    store = group.distributed_c10d._get_default_store()
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
    group = _group()
    if group is None:
        return value
    box = [value]
    group.broadcast_object_list(box, src=0)
    return box[0]


def _group() -> Any:
    """`torch.distributed` where this process is one of a formed group, else None."""
    if launched_ranks() == 1:
        return None
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None


def rank() -> int:
    """This process' number, 0 without a process group."""
    group = _group()
    return 0 if group is None else group.get_rank()


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    group = _group()
    return 1 if group is None else group.get_world_size()


def barrier() -> None:
    """Wait for all processes."""
    group = _group()
    if group is not None:
        group.barrier()


def max_over_ranks(value: int, device: torch.device) -> int:
    """The largest `value` of all processes (used to agree on stopping)."""
    group = _group()
    if group is None:
        return value
    import torch

    box = torch.tensor([value], device=device)
    group.all_reduce(box, op=group.ReduceOp.MAX)
    return int(box.item())


def sum_over_ranks(values: list[float], device: torch.device | str) -> list[float]:
    """Element-wise sum over all processes, in float64 where the device has it."""
    group = _group()
    if group is None:
        return values
    import torch

    dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
    box = torch.tensor(values, device=device, dtype=dtype)
    group.all_reduce(box)
    return box.tolist()


def gather_objects(value: Any) -> list[Any]:
    """`value` of every process, in rank order, on every process."""
    group = _group()
    if group is None:
        return [value]
    gathered: list[Any] = [None] * world_size()
    group.all_gather_object(gathered, value)
    return gathered
