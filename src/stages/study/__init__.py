"""`metashot init FOLDER`: a small study of one's own that runs, to be changed."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from metashot.base.errors import ConfigError


def make_study(folder: Path) -> str:
    """Write the study into a new folder.

    Args:
        folder: must not exist, or be empty.

    Returns:
        What to type next.

    Raises:
        ConfigError: something is there already, or the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("init", f"{str(folder)!r} is there already", "give the name of a new folder")
    try:
        with as_file(files(__name__)) as source:
            shutil.copytree(
                source, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"), dirs_exist_ok=True
            )
    except OSError as error:
        raise ConfigError(
            "init", f"{str(folder)!r} cannot be written: {error.strerror or error}", "give another folder"
        ) from error
    return f"wrote {folder}; next: cd {folder}, and the commands of its README.md"
