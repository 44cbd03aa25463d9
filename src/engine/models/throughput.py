"""How fast this machine multiplies matrices: the yardstick of time estimates and benchmarks."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIZE = 1024
_SECONDS = 0.3


@cache
def matmul_flops_per_second(dtype: str = "float32") -> float:
    """Floating-point operations per second of a square matrix product, measured for a third of a second."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.randn(_SIZE, _SIZE, dtype=getattr(torch, dtype), device=device)
    torch.mm(matrix, matrix)
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        torch.mm(matrix, matrix)
        if device == "cuda":
            torch.cuda.synchronize()
        runs += 1
    return 2 * _SIZE**3 * runs / (time.perf_counter() - start)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
