"""The names of devices, as a kind of value that settings take."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator

AUTO = "auto"
"""A GPU when there is one."""


def _device(name: str) -> str:
    if name != AUTO:
        try:
            torch.device(name)
        except RuntimeError:
            raise ValueError("must be auto, cpu, cuda, cuda:1, or another device of torch") from None
    return name


Device = Annotated[str, AfterValidator(_device)]
