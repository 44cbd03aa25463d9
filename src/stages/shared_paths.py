"""Relative paths of the config belong to the folder that the command was started in, wherever a job has gone.

With `hydra.job.chdir=true` a job runs in its own output folder; stored cells, checkpoints and data stay shared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_ALWAYS = ("results_root",)
_WHERE_PRESENT = (
    "root", "path", "folder", "cache", "checkpoint", "checkpoints", "clusters", "run", "runs", "data_root",
    "prompt_path", "regularizer_path", "recipe_path", "source",
)  # fmt: skip
"""Keys that may hold a path, or a name that is none: they are taken as a path where it is there."""


def anchored(node: Any, start: Path, key: str = "") -> Any:
    """A resolved config whose relative paths are joined to `start`.

    Args:
        node: plain values.
        start: the folder that the command was started in.
        key: the last key above `node`.
    """
    if isinstance(node, dict):
        return {name: anchored(value, start, str(name)) for name, value in node.items()}
    if isinstance(node, list):
        return [anchored(value, start, key) for value in node]
    if not isinstance(node, str) or not node or Path(node).is_absolute() or node.startswith("~"):
        return node
    if key in _ALWAYS or (key in _WHERE_PRESENT and (start / node).exists()):
        return str(start / node)
    return node
