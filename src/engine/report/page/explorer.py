"""The predictions as compact JSON for the page's per-example view: texts once, answers and scores per system.

Keys are short because there are many: a cell is `s` system, `t` task, `seed`, `p` its demonstrations, `i` its inputs,
`o` option sets, `g` gold and `a` answer as places among the options, `x` the ranking scores in nats.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from metashot.engine.cells.prompts import CellPrompt, read_prompts
from metashot.engine.report.reading.outputs import SYSTEM, Outputs
from metashot.engine.report.reading.variants import with_variants
from metashot.engine.report.systems.results import System, SystemResults

MOST_PREDICTIONS = 40_000
MOST_PROMPT_CHARACTERS = 8_000_000


@dataclass(frozen=True, slots=True)
class Explorer:
    """What the page embeds.

    Attributes:
        json: the data, safe inside a script element.
        predictions: how many are in it.
        left_out: what is not, as a sentence; empty when nothing is.
    """

    json: str
    predictions: int
    left_out: str


class _Interned:
    """Values numbered in the order in which they were first seen."""

    def __init__(self) -> None:
        self.places: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        return self.places.setdefault(value, len(self.places))


def explorer(outputs: Outputs, answers: Sequence[SystemResults]) -> Explorer | None:
    """The view's data; None where no predictions are left.

    At most `MOST_PREDICTIONS` are kept: first one seed of every system and task, then fewer examples.
    """
    kept = with_variants(outputs.results, outputs.runs, outputs.names)
    key = ["run", "fingerprint", "task", "seed"]
    columns = [*key, "index", "gold", "prediction", "options", "nll"]
    frame = (
        kept.select([*SYSTEM, *key, "metric"])
        .join(outputs.predictions.select(columns), on=key, how="inner")
        .filter(pl.col("options").list.len() > 0)
        .sort([*SYSTEM, "task", "seed", "index"])
    )
    total = frame.height
    frame, left_out = _limited(frame, total)
    if frame.is_empty():
        return None
    systems = {row.system: place for place, row in enumerate(answers)}
    tasks, options, prompts, inputs = _Interned(), _Interned(), _Interned(), _Interned()
    shown = [read_prompts(run.folder) for run in outputs.runs]
    cells: list[dict[str, Any]] = []
    for values, rows in frame.partition_by(
        [*SYSTEM, "run", "task", "seed"], maintain_order=True, as_dict=True
    ).items():
        system, (run, task, seed) = System(*values[: len(SYSTEM)]), values[len(SYSTEM) :]
        if system not in systems:
            continue
        prompt = shown[int(run)].get((str(task), int(seed)))
        cells.append(
            {
                "s": systems[system],
                "t": tasks((system.setting, str(task), str(rows["metric"][0]))),
                "seed": int(seed),
                "p": -1 if prompt is None or prompt.demonstrations is None else prompts(prompt.demonstrations),
                "i": _inputs(prompt, rows, inputs),
                **_answers(rows, options),
            }
        )  # fmt: skip
    texts = list(prompts.places)
    if sum(map(len, texts)) > MOST_PROMPT_CHARACTERS:
        texts, left_out = [], f"{left_out} The demonstrations are too long to be shown here.".strip()
    data = {
        "systems": [{"name": r.system.title, "model": r.system.model, "setting": r.system.setting} for r in answers],
        "tasks": [{"setting": s, "name": name, "metric": metric} for s, name, metric in tasks.places],
        "options": list(options.places),
        "prompts": texts,
        "inputs": list(inputs.places),
        "cells": cells,
    }  # fmt: skip
    return Explorer(_embedded(data), frame.height, left_out)


def _limited(frame: pl.DataFrame, total: int) -> tuple[pl.DataFrame, str]:
    if total <= MOST_PREDICTIONS:
        return frame, ""
    first = frame.filter(pl.col("seed") == pl.col("seed").first().over([*SYSTEM, "task"]))
    if first.height > MOST_PREDICTIONS:
        cells = first.select([*SYSTEM, "task"]).n_unique()
        first = first.filter(pl.col("index") < max(1, MOST_PREDICTIONS // cells))
    return first, f"{first.height:,} of {total:,} predictions are here: one seed of each task."


def _inputs(prompt: CellPrompt | None, rows: pl.DataFrame, inputs: _Interned) -> int:
    """The place of the cell's inputs; -1 where they are not known or do not belong to these rows."""
    if prompt is None or not prompt.inputs or int(rows["index"].max() or 0) >= len(prompt.inputs):  # pyright: ignore[reportArgumentType]
        return -1
    return inputs(tuple(prompt.inputs[index] for index in rows["index"].to_list()))


def _answers(rows: pl.DataFrame, options: _Interned) -> dict[str, Any]:
    sets = [tuple(row) for row in rows["options"].to_list()]
    places = [options(row) for row in sets]
    columns: Iterator[tuple[tuple[str, ...], str, str]] = zip(
        sets, rows["gold"].to_list(), rows["prediction"].to_list(), strict=True
    )
    pairs = [(_place(row, gold), _place(row, said)) for row, gold, said in columns]
    return {
        "o": places[0] if len(set(places)) == 1 else places,
        "g": [gold for gold, _ in pairs],
        "a": [said for _, said in pairs],
        "x": [[round(value, 3) for value in row] for row in rows["nll"].to_list()],
    }


def _place(options: tuple[str, ...], answer: str) -> int | str:
    """Where an answer stands among the options; itself where it does not."""
    return options.index(answer) if answer in options else answer


def _embedded(data: object) -> str:
    """JSON that cannot end its script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
