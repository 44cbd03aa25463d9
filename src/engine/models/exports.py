"""Folders that are written for others: whole or absent, and held to a seal where this package reads them back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from metashot.base.errors import ConfigError, ModelError
from metashot.base.files import (
    fsync_file,
    fsync_folder,
    remove_leftovers,
    sha256_file,
    sha256_once,
    temporary_beside,
    write_json,
)
from metashot.base.json_text import read_json, sealed, unsealed
from metashot.engine.training.weight_output import share_as_folder, weight_output_errors

EXPORT_SEAL = "metashot.json"
"""Beside the exported files: sha256 of each of them, sealed."""
CARD = "README.md"
"""For people, who may rewrite it: not held to anything."""


@contextmanager
def exporting(target: Path) -> Generator[Path]:
    """A folder to fill, which becomes `target` when the block ends well; an earlier export there is replaced.

    Raises:
        ConfigError: `target` exists and is no export.
        OutputError: the folder cannot be written, or the disk is full.
    """
    if target.exists() and not (target / EXPORT_SEAL).is_file():
        raise ConfigError("hydra.run.dir", f"{str(target)!r} exists", "export into another run's folder")
    staging = temporary_beside(target)
    try:
        with weight_output_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(target.parent)
            staging.mkdir()
            yield staging
            share_as_folder(staging)
            _seal(staging)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(staging, target)
            fsync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_export(folder: Path) -> None:
    """Hold a folder to the seal that `exporting` left in it; folders of others carry none and are taken as they stand.

    Raises:
        ModelError: a file is missing or differs, or the seal itself is damaged.
    """
    path = folder / EXPORT_SEAL
    if not path.is_file():
        return
    try:
        files = unsealed(read_json(path))["files"]
        differing = [name for name, digest in files.items() if sha256_once(folder / name) != digest]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            str(path), f"cannot hold the export to its seal: {error}", "export it again"
        ) from error
    if differing:
        raise ModelError(
            str(folder / differing[0]),
            "is not as it was exported",
            f"export it again; if the change is meant, remove {EXPORT_SEAL}",
        )


def _seal(folder: Path) -> None:
    files: dict[str, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        fsync_file(path)
        if path.name != CARD:
            files[path.name] = sha256_file(path)
    write_json(folder / EXPORT_SEAL, sealed({"files": files}))
