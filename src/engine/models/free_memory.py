"""How much memory a process may still take: of the machine, of its control group, or of a GPU. Needs no torch for the first two."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil


def free_memory(device: str = "cpu", root: Path = Path("/")) -> int:
    """Bytes that this process may still take, its share where several processes of a launch are on this machine.

    Args:
        device: as torch names it, `cpu` or `cuda:1`; what torch holds of a GPU and does not use counts as free.
        root: where `proc` and `sys` are mounted.
    """
    if device.startswith("cuda"):
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min([psutil.virtual_memory().available, *_left_in_groups(root)]) // max(1, processes)


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group above this process, of either version, still allows; page cache counts as free."""
    for folder, limit, used, cache in _groups(root):
        try:
            most = (folder / limit).read_text().strip()
            if most == "max":
                continue
            taken = int((folder / used).read_text())
            rows = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = next((int(row[1]) for row in rows if row[0] == cache), 0)
            yield max(0, int(most) - taken + cached)
        except (OSError, ValueError):
            continue


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folders of the memory control groups, and what limit, use and page cache are called there."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        own = PurePosixPath(path.lstrip("/"))
        if not controllers:
            folder, files = mounted, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            folder = mounted / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        limit, used, cache = files
        for group in (own, *own.parents):
            yield folder / group, limit, used, cache
