"""How fast this machine multiplies matrices: the yardstick of time estimates and benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version

import numpy as np

_SIZE = 1024
_SECONDS = 0.3


@cache
def matmul_flops_per_second(dtype: str = "float32") -> float:
    """Floating-point operations per second of a square matrix product, measured for a third of a second.

    Where torch is a build for CPUs, numpy multiplies float32 in its place: importing torch would take longer.
    """
    if dtype == "float32" and version("torch").endswith("+cpu"):
        matrix = np.ones((_SIZE, _SIZE), dtype=np.float32)
        return _measured(lambda: matrix @ matrix)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensor = torch.randn(_SIZE, _SIZE, dtype=getattr(torch, dtype), device=device)

    def multiply() -> None:
        torch.mm(tensor, tensor)
        if device == "cuda":
            torch.cuda.synchronize()

    return _measured(multiply)


def _measured(multiply: Callable[[], object]) -> float:
    multiply()
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < _SECONDS:
        multiply()
        runs += 1
    return 2 * _SIZE**3 * runs / (time.perf_counter() - start)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
