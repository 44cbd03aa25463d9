"""What torchrun or accelerate tells the processes that it starts; needs no torch."""

from __future__ import annotations

import os


def launched_ranks() -> int:
    """Number of processes of this launch; 1 for a process of its own."""
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        return 1
    return int(os.environ.get("WORLD_SIZE", "1"))
