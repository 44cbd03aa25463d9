"""Which meta-task formats are shipped."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

FORMAT_FOLDER = Path(str(files("metashot.metaprompt.meta") / "format_files"))


def format_names() -> list[str]:
    """Names of the shipped formats, a file each."""
    return sorted(path.stem for path in FORMAT_FOLDER.glob("*.yaml"))
