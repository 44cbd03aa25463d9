"""The names of devices, as a kind of value that settings take."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

AUTO = "auto"
"""A GPU when there is one."""
_COMMON = (AUTO, "cpu", "cuda")
"""Known to be right without asking torch."""


def _device(name: str) -> str:
    if name not in _COMMON:
        import torch

        try:
            torch.device(name)
        except RuntimeError:
            raise ValueError("must be auto, cpu, cuda, cuda:1, or another device of torch") from None
    return name


Device = Annotated[str, AfterValidator(_device)]
