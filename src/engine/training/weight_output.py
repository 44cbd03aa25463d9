"""Files that safetensors writes: a full disk is an error of its own kind there, and only their owner may read them."""

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


def share_as_folder(folder: Path) -> None:
    """Let the files in `folder` be read by those who may list it: safetensors writes for the owner alone (0600).

    The folder has what the umask granted when it was made.
    """
    granted = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(granted)
