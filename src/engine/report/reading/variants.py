"""Tell apart runs that have the same setting, method, model and k but another config.

Where two runs give one cell different fingerprints, something else differs (a selection strategy, a
truncation rule, a checkpoint); the config keys in which the runs differ become the variant's name. All k
of a method are named alike, so that curves over k stay together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from metashot.engine.report.reading.outputs import CELL, Run

_GROUP = ["setting", "method", "model", "condition"]

_LABEL_KEYS = {
    "k", "stage", "seeds", "setting", "experiment", "results_root", "debug", "condition", "method.name", "method.title",
    "method.row",
    "data.tasks",
}  # fmt: skip
_LABEL_NODES = ("logger.", "hydra.", "report.", "plan.", "sweep.", "scorer.")
"""Keys that decide no value, or that have a column of their own."""


def with_variants(
    results: pl.DataFrame, runs: Sequence[Run], names: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Add the column `variant`, then keep each cell once.

    Args:
        results: from `read_outputs`.
        runs: the runs that its `run` column counts.
        names: short names, see `differing`.
    """
    fingerprints = (
        results.group_by([*_GROUP, "k", "task", "seed"]).agg(pl.col("fingerprint").n_unique().alias("kinds"))
    )  # fmt: skip
    mixed = fingerprints.filter(pl.col("kinds") > 1).select(_GROUP).unique()
    found: list[tuple[Any, ...]] = []
    for group in mixed.iter_rows():
        in_group = pl.lit(True)
        for name, value in zip(_GROUP, group, strict=True):
            in_group &= pl.col(name) == value
        numbers = results.filter(in_group)["run"].unique().sort().to_list()
        labels = variant_names([runs[number] for number in numbers], names)
        found += [(*group, number, label) for number, label in zip(numbers, labels, strict=True)]
    schema = {name: results.schema[name] for name in (*_GROUP, "run")} | {"variant": pl.String}
    table = pl.DataFrame(found, schema=schema, orient="row")
    named = results.join(table, on=[*_GROUP, "run"], how="left", maintain_order="left")
    return named.with_columns(pl.col("variant").fill_null("")).unique(
        subset=list(CELL), keep="first", maintain_order=True
    )


def variant_names(runs: Sequence[Run], names: Mapping[str, str] | None = None) -> list[str]:
    """One name a run, from the config keys in which these runs differ; else from their folders."""
    parts = differing(runs, names)
    return [", ".join(mine) for mine in parts] if any(parts) else [run.folder.name for run in runs]


def differing(runs: Sequence[Run], names: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
    """For each run the keys in which these runs differ with its values, `prompt.max_length=512`.

    A node of which another choice was made is its name alone (`prompt=chat`), as long as that tells the runs apart:
    its class and the keys that only one choice has say nothing more. `names` has short names for keys
    (`prompt.max_length: room` gives `room=512`) and for keys with a value (`prompt=chat: chat`).
    """
    keys = sorted({key for run in runs for key in run.config if not _is_label(key)})
    different = [key for key in keys if len({repr(run.config.get(key)) for run in runs}) > 1]
    ends = ("._target_", ".name")
    chosen = list(dict.fromkeys(key.rpartition(".")[0] for key in different if key.endswith(ends)))
    named = [node for node in chosen if all(f"{node}.name" in run.config for run in runs if _has(run, node))]
    short = [key for key in different if not any(key.startswith(f"{node}.") for node in named)]
    parts = [_parts(run, [f"{node}.name" for node in named], short) for run in runs]
    full = [_parts(run, [], different) for run in runs]
    # Classes are named only where nothing else tells the runs apart.
    plain = [_parts(run, [], [key for key in different if not key.endswith("._target_")]) for run in runs]
    told = next(one for one in (parts, plain, full) if len(set(one)) == len(set(full)))
    return [tuple(_short(part, names or {}) for part in mine) for mine in told]


def _short(part: str, names: Mapping[str, str]) -> str:
    key, _, value = part.partition("=")
    return names.get(part) or (f"{names[key]}={value}" if key in names else part)


def _has(run: Run, node: str) -> bool:
    return any(key.startswith(f"{node}.") for key in run.config)


def _parts(run: Run, names: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    chosen = (f"{key.removesuffix('.name')}={_word(run.config.get(key))}" for key in names)
    return (*chosen, *(f"{key}={_word(run.config.get(key))}" for key in keys))


def _word(value: Any) -> str:
    """A value as the command line takes it: null and true, not None and True."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _is_label(key: str) -> bool:
    return key in _LABEL_KEYS or key.startswith(_LABEL_NODES)
