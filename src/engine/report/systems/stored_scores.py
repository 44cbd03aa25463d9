"""The stored option scores of each system as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metashot.engine.metrics.classification import Floats
from metashot.engine.report.reading.outputs import SYSTEM, Outputs
from metashot.engine.report.reading.variants import with_variants
from metashot.engine.report.systems.results import System


@dataclass(frozen=True, slots=True, eq=False)
class StoredScores:
    """n answers that ranked options, of all tasks and seeds of a system.

    Attributes:
        scores: [n, options] by which they were ranked, nats, lower is better; inf where an example has fewer options.
        gold: [n] place of the right one.
        units: [n] number of the test example that each is to, from 0: seeds share it.
        tasks: [n] task names.
    """

    scores: Floats
    gold: NDArray[np.int64]
    units: NDArray[np.int64]
    tasks: NDArray[np.str_]


def stored_scores(outputs: Outputs) -> dict[System, StoredScores]:
    """The scores of each system; answers of which the right one is no option are left out."""
    key = ["run", "fingerprint", "task", "seed"]
    frame = (
        with_variants(outputs.results, outputs.runs, outputs.names)
        .select([*SYSTEM, *key])
        .join(outputs.predictions.select([*key, "index", "gold", "options", "nll"]), on=key, how="inner")
        .filter(pl.col("options").list.len() > 1, pl.col("options").list.contains(pl.col("gold")))
    )
    found: dict[System, StoredScores] = {}
    for values, rows in frame.partition_by(SYSTEM, maintain_order=True, as_dict=True).items():
        scores = rows["nll"].to_list()
        padded: Floats = np.full((len(scores), max(map(len, scores))), np.inf)
        for place, row in enumerate(scores):
            padded[place, : len(row)] = row
        pairs = zip(rows["options"].to_list(), rows["gold"].to_list(), strict=True)
        gold = np.array([options.index(answer) for options, answer in pairs], dtype=np.int64)
        units = rows.select(pl.struct("task", "index").rank("dense") - 1).to_series().to_numpy()
        tasks = np.array(rows["task"].to_list(), dtype=np.str_)
        found[System(*values)] = StoredScores(padded, gold, units.astype(np.int64), tasks)
    return found
