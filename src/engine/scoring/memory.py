"""Telling a lack of memory from other errors."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch's CPU allocator only says so in words."""
    words = ("not enough memory", "out of memory", "can't allocate memory")
    is_named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_named or any(word in str(error).lower() for word in words)
