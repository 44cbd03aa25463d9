"""Dataset files on the hub, found by `datasets`, fetched by `huggingface_hub`, and folders laid out like them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metashot.base.errors import DataError
from metashot.base.extras import import_extra
from metashot.data.sources.tables import ENDINGS

CONVERSION = "refs/convert/parquet"
"""Branch on which the hub keeps its own parquet copy of script-only datasets."""
_REMOTE = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<revision>refs/convert/[^/]+|[^/]+)/(?P<name>.+)")
_REASON_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Located:
    """The files of one split.

    Attributes:
        paths: local files, in row order.
        revision: commit or branch they came from; empty for local folders.
        origin: what to tell the user.
    """

    paths: tuple[Path, ...]
    revision: str
    origin: str


def locate_in_folder(folder: Path, config: str | None, split: str) -> Located | None:
    """Files of a split in a folder laid out like the hub; None if it holds none.

    Known layouts: `<config>/<split>-*.parquet`, `<config>/<split>/*.parquet` (the hub's conversion),
    `<config>/<split>.<ending>`, and the same below `data/` or at the top.
    """
    parents = [folder / part for part in ((config,) if config else ()) + ("data", ".")]
    for parent in parents:
        for ending in ENDINGS:
            found = [
                *sorted(parent.glob(f"{split}-*{ending}")),
                *sorted((parent / split).glob(f"*{ending}")),
                *parent.glob(f"{split}{ending}"),
            ]
            if found:
                return Located(tuple(found), "", str(folder))
    if (folder / (config or ".") / f"partial-{split}").is_dir():
        raise DataError(str(folder), f"holds only a part of {split}", "fetch the whole split")
    return None


def locate_on_hub(repo: str, config: str | None, split: str, revision: str | None) -> Located:
    """Find and fetch the files of a split; interrupted downloads go on where they stopped.

    Raises:
        DataError: no network, no such dataset, configuration or split, a script-only dataset, or a partial
            conversion.
    """
    datasets = import_extra("datasets", repo)
    where = f"{repo}{f'@{revision}' if revision else ''}"
    try:
        builder = _builder(datasets, repo, config, split, revision)
    except Exception as error:  # the library raises a dozen types, network and offline errors among them
        raise DataError(
            where, _reason(error), "see the recipe's fallbacks, or put the files into data.raw"
        ) from error
    files = (builder.config.data_files or {}).get(split)
    if not files:
        known = ", ".join(sorted(map(str, builder.config.data_files or {})))
        raise DataError(where, f'has no split "{split}"', f"it has: {known or 'no files'}")
    return _fetched(list(map(str, files)), where)


def _builder(datasets: Any, repo: str, config: str | None, split: str, revision: str | None) -> Any:
    if revision == CONVERSION:
        pattern = f"hf://datasets/{repo}@{revision}/{config or '*'}/{split}/*.parquet"
        return datasets.load_dataset_builder("parquet", data_files={split: pattern})
    return datasets.load_dataset_builder(repo, name=config, revision=revision)


def _fetched(files: list[str], where: str) -> Located:
    paths: list[Path] = []
    revision = ""
    for file in files:
        match = _REMOTE.fullmatch(file)
        if match is None:
            paths.append(Path(file))
            continue
        revision = match["revision"]
        paths.append(_fetch(match["repo"], revision, match["name"], where))
    return Located(tuple(paths), revision, where)


def _fetch(repo: str, revision: str, name: str, where: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
    except Exception as error:
        raise DataError(
            where, f"{name} cannot be fetched: {_reason(error)}", "run again: it resumes"
        ) from error


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:_REASON_CHARACTERS]}" if text else type(error).__name__
