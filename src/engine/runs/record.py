"""`run.json`: what was run, with what, where, and at what cost."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from metashot.engine.files import write_json
from metashot.engine.runs.results import RUN_FILE

_PACKAGES = (
    "metashot",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "hydra-core",
    "omegaconf",
    "safetensors",
)


class RunRecord:
    """Collects what belongs into `run.json` and writes it, whole, at every change of status.

    Args:
        folder: the run's output folder.
        config: the resolved config.
        overrides: the command line's overrides.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], overrides: list[str]) -> None:
        self.folder = folder
        self._start = time.monotonic()
        self._content: dict[str, Any] = {
            "config": dict(config),
            "overrides": overrides,
            "versions": package_versions(),
            "git_commit": git_commit(),
            "host": {
                "system": platform.platform(),
                "processor": platform.machine(),
                "python": sys.version.split()[0],
            },
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def write(self, status: str, **facts: Any) -> None:
        """Write the file with `status` (`running`, `finished`, `failed`) and further facts."""
        self._content.update(facts)
        self._content["status"] = status
        self._content["wall_seconds"] = round(time.monotonic() - self._start, 3)
        write_json(self.folder / RUN_FILE, self._content)


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """The checkout's commit, with `-dirty` when files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
