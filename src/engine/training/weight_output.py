"""Errors of files that safetensors writes: a full disk is an error of its own kind there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from metashot.base.errors import OutputError
from metashot.base.files import output_errors


@contextmanager
def weight_output_errors(path: Path) -> Generator[None]:
    """As `output_errors`, also for what safetensors raises while it writes below `path`."""
    try:
        with output_errors(path):
            yield
    except SafetensorError as error:
        raise OutputError(str(path), f"cannot write: {error}", "free the disk") from error
