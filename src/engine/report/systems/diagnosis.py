"""The measures of `engine.metrics.diagnosis` for each system, from its stored scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from metashot.engine.metrics import diagnosis
from metashot.engine.metrics.classification import Floats
from metashot.engine.metrics.rules import CALIBRATIONS, CONTENT_FREE
from metashot.engine.report.reading.outputs import SYSTEM, Outputs
from metashot.engine.report.reading.variants import with_variants
from metashot.engine.report.systems.results import System, SystemResults

_PROMPT = re.compile(r"(?:^|, )prompt=([^,]+)")
_NOISE = re.compile(r"(?:^|, )selection\.label_noise=([^,]+)")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Measures of one system, each a mean over its tasks; None where nothing stored tells it.

    Attributes:
        contextual: bias after content-free inputs, 0..1.
        domain: bias after random words of the task, 0..1.
        posterior: bias over the test rows, 0..1.
        ties: share of answers that the order of options decided.
        over_seeds: agreement of answers over demonstrations.
        over_prompts: the same over prompts, of the systems that differ in the prompt alone.
        noise: change of the mean per share of wrong labels in the demonstrations, of those that differ in it alone.
    """

    contextual: float | None
    domain: float | None
    posterior: float | None
    ties: float | None
    over_seeds: float | None
    over_prompts: float | None
    noise: float | None


def diagnose(outputs: Outputs, answers: Sequence[SystemResults]) -> dict[System, Diagnosis]:
    """The measures of every system that ranked options."""
    key = ["run", "fingerprint", "task", "seed"]
    columns = ["index", "gold", "prediction", "options", "nll", "null_sum_nll", "null_n_tokens"]
    frame = (
        with_variants(outputs.results, outputs.runs, outputs.names)
        .select([*SYSTEM, *key])
        .join(outputs.predictions.select([*key, *columns]), on=key, how="inner")
        .filter(pl.col("options").list.len() > 1)
        .sort([*SYSTEM, "task", "seed", "index"])
    )
    parts = {
        System(*values): rows
        for values, rows in frame.partition_by(SYSTEM, maintain_order=True, as_dict=True).items()
    }
    figures = {row.system: row for row in answers}
    prompts, noise = _groups(parts, _PROMPT), _groups(parts, _NOISE)
    found: dict[System, Diagnosis] = {}
    for system, rows in parts.items():
        if system not in figures:
            continue
        configs = [outputs.runs[number].config for number in rows["run"].unique()]
        biases = [_biases(task, configs[0]) for task in _tasks(rows)]
        same = prompts.get(_without(system, _PROMPT) or system, {})
        steps = {
            float(share): figures[one]
            for share, one in noise.get(_without(system, _NOISE) or system, {}).items()
            if one in figures
        }
        contextual, domain, posterior = (_mean([one[place] for one in biases]) for place in range(3))
        found[system] = Diagnosis(
            contextual,
            domain,
            posterior,
            ties=float(np.mean([_ties(task) for task in _tasks(rows)])),
            over_seeds=_mean([diagnosis.agreement(_by(task, "seed")) for task in _tasks(rows)]),
            over_prompts=_over_prompts([parts[one] for one in same.values()]),
            noise=diagnosis.slope(list(steps), [row.figures.mean.value for row in steps.values()])
            if steps
            else None,
        )
    return found


def _tasks(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    yield from rows.partition_by("task", maintain_order=True)


def _without(system: System, part: re.Pattern[str]) -> System | None:
    """The system without that part of its variant; None where it has none."""
    found = part.search(system.variant)
    if found is None:
        return None
    rest = (system.variant[: found.start()] + system.variant[found.end() :]).removeprefix(", ")
    return replace(system, variant=rest)


def _groups(systems: Mapping[System, Any], part: re.Pattern[str]) -> dict[System, dict[str, System]]:
    """Systems that differ in one part of the variant alone, by its value."""
    groups: dict[System, dict[str, System]] = {}
    for system in systems:
        if (rest := _without(system, part)) is not None and (found := part.search(system.variant)):
            groups.setdefault(rest, {})[found[1]] = system
    return groups


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _ties(rows: pl.DataFrame) -> float:
    scores = rows["nll"].to_list()
    padded = np.full((len(scores), max(map(len, scores))), np.inf)
    for place, row in enumerate(scores):
        padded[place, : len(row)] = row
    return diagnosis.tie_share(padded)


def _by(rows: pl.DataFrame, column: str) -> list[list[str]]:
    """Answers to the test rows that every part of a column has, part by part."""
    parts = [
        dict(zip(part["index"].to_list(), part["prediction"].to_list(), strict=True))
        for part in rows.partition_by(column, maintain_order=True)
    ]
    shared = sorted(set.intersection(*(set(part) for part in parts)))
    return [[part[index] for index in shared] for part in parts] if shared else []


def _over_prompts(systems: Sequence[pl.DataFrame]) -> float | None:
    """Agreement of systems on the same task and seed."""
    if len(systems) < 2:
        return None
    named = pl.concat([rows.with_columns(pl.lit(place).alias("place")) for place, rows in enumerate(systems)])
    cells = named.partition_by(["task", "seed"], maintain_order=True)
    return _mean([diagnosis.agreement(_by(cell, "place")) for cell in cells if _by(cell, "place")])


def _biases(rows: pl.DataFrame, config: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Contextual, domain and posterior bias of a task with one label set; None of one with options for each row."""
    options = rows["options"].to_list()
    order = {name: place for place, name in enumerate(options[0])}
    if any(set(row) != set(order) for row in options) or not set(rows["gold"]) <= set(order):
        return None, None, None
    places = np.array([[order[name] for name in row] for row in options])
    scores = np.empty(places.shape)
    np.put_along_axis(scores, places, np.array(rows["nll"].to_list()), axis=1)
    posterior = diagnosis.posterior_bias(
        scores, np.array([order[gold] for gold in rows["gold"]], dtype=np.int64)
    )
    if not len(rows["null_sum_nll"][0]):
        return None, None, posterior
    first = rows.unique("seed", keep="first", maintain_order=True)
    layers: Floats = np.concatenate(
        [
            np.array(sums)[:, np.argsort([order[name] for name in names])]
            / np.maximum(np.array(tokens)[:, np.argsort([order[name] for name in names])], 1)
            for sums, tokens, names in zip(
                first["null_sum_nll"].to_list(), first["null_n_tokens"].to_list(), first["options"].to_list(), strict=True
            )
        ]
    )  # fmt: skip
    of_seed = len(layers) // first.height
    where = np.arange(len(layers)) % of_seed
    free, words = _kinds(config, of_seed)
    chosen = [layers[np.isin(where, kind)] for kind in (free, words)]
    contextual, domain = (diagnosis.prior_bias(one) if len(one) else None for one in chosen)
    return contextual, domain, posterior


def _kinds(config: Mapping[str, Any], n: int) -> tuple[range, range]:
    """Which of n stored inputs beside the test input are content-free, and which random words."""
    if config.get("method.probes"):
        return range(min(n, len(CONTENT_FREE))), range(min(n, len(CONTENT_FREE)), n)
    rule = CALIBRATIONS.get(str(config.get("method.calibration")))
    source = None if rule is None or rule.inputs is None else rule.inputs.name
    if source is None:
        return range(n), range(0)
    return range(0), range(n) if source == "words" else range(0)
