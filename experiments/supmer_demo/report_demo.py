"""The demonstration's table and figure, with intervals that respect which runs share a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from world import ATTRIBUTES

from metashot.engine.files import read_lines, write_atomic

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "supmer_demo"
from matplotlib import pyplot as plt  # noqa: E402

Floats = NDArray[np.float64]
METHODS = (
    "vocabulary",
    "vocabulary, psi",
    "multi-task",
    "multi-task, psi",
    "meta-learned",
    "meta-learned, psi",
    "meta-learned, mixing",
    "meta-learned, mixing, psi",
    "PEFT prompt tuning",
    "full fine-tuning",
    "in context",
)
DRAWN = ("vocabulary", "multi-task", "meta-learned, mixing", "meta-learned, mixing, psi")
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean accuracy with its 95 % interval, in percent."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """`mean (low to high)`."""
        return f"{self.mean:.1f} ({self.low:.1f} to {self.high:.1f})"


def bootstrap_weights(backbones: int, meta_seeds: int, data_seeds: int) -> Iterator[Floats]:
    """Weights of every run [backbones, meta seeds, data seeds] in each resampling.

    Backbones are resampled, meta seeds within each of them, and data seeds once for all runs, since every run sees
    the same draws of examples. Source: A. Owen, The pigeonhole bootstrap, 2007, with one nested factor.
    """
    generator = np.random.default_rng(0)
    for _ in range(DRAWS):
        chosen = generator.multinomial(backbones, np.full(backbones, 1 / backbones))
        data = generator.multinomial(data_seeds, np.full(data_seeds, 1 / data_seeds))
        weights = np.zeros((backbones, meta_seeds, data_seeds))
        for backbone, times in enumerate(chosen):
            meta = generator.multinomial(meta_seeds * times, np.full(meta_seeds, 1 / meta_seeds))
            weights[backbone] = meta[:, None] * data[None]
        yield weights / weights.sum()


def figure_of(values: Floats) -> Figure:
    """Mean and percentile interval of accuracies [backbones, meta seeds, data seeds], 0..1."""
    drawn = [float((values * weights).sum()) for weights in bootstrap_weights(*values.shape)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Figure(100 * float(values.mean()), 100 * float(low), 100 * float(high))


def values_of(
    rows: Sequence[dict[str, Any]],
    *,
    main: str,
    task: str,
    method: str,
    rate: float | None,
    step: int,
    test: str,
) -> Floats | None:
    """Accuracies [backbones, meta seeds, data seeds] of one figure over the runs that are whole, or None."""
    found = {
        (row["backbone"], row["meta_seed"], row["data_seed"]): row["curve"][str(step)][test]
        for row in rows
        if (row["main"], row["task"], row["method"]) == (main, task, method)
        and row["learning_rate"] in (rate, None)
        and str(step) in row["curve"]
        and test in row["curve"][str(step)]
    }
    if not found:
        return None
    seeds = [sorted({key[axis] for key in found}) for axis in range(3)]
    whole = [b for b in seeds[0] if all((b, m, d) in found for m in seeds[1] for d in seeds[2])]
    if not whole:
        return None
    return np.array([[[found[b, m, d] for d in seeds[2]] for m in seeds[1]] for b in whole])


def columns(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """(task, step, test set) of every figure in the table."""
    found = {(row["task"], int(s), t) for row in rows for s, at in row["curve"].items() for t in at}
    last = max(step for _, step, _ in found)
    order = {name: place for place, name in enumerate(dict.fromkeys(row["task"] for row in rows))}
    kept = [key for key in found if key[2] == "test" or key[1] in (0, last)]
    tests = ("test", "source", "free", "oppose")
    return sorted(kept, key=lambda key: (order[key[0]], tests.index(key[2]), key[1]))


def write_report(output: Path, work: Path) -> str:
    """Write `table.md` and `curves.svg` below `output` from its `results.jsonl`, and return the table."""
    everything = list(read_lines(output / "results.jsonl"))
    rows = [row for row in everything if "method" in row]
    spent = [row["cpu_seconds"] for row in everything if "method" not in row]
    backbones = [json.loads(path.read_text()) for path in sorted(work.glob("backbone-*/abilities.json"))]
    spent += [one["cpu_seconds"] for one in backbones]
    rates = sorted({row["learning_rate"] for row in rows if row["method"] in DRAWN})
    parts = [_table(rows, main, rate) for main in ATTRIBUTES for rate in rates]
    parts.append(_abilities(backbones))
    parts.append(f"{sum(spent) / 60:.1f} CPU minutes in all.\n")
    text = "\n".join(parts)
    write_atomic(output / "table.md", text)
    _draw(rows, rates[0], output / "curves.svg")
    return text


def _table(rows: Sequence[dict[str, Any]], main: str, rate: float) -> str:
    lines = [
        f"Clusters about {main}, learning rate {rate:g}. Accuracy in percent (95 % interval).\n",
        "| task | tested on | step | " + " | ".join(METHODS) + " |",
        "| --- | --- | ---: |" + " ---: |" * len(METHODS),
    ]
    for task, step, test in columns(rows):
        cells: list[str] = []
        for method in METHODS:
            own = None if method == "full fine-tuning" else rate
            if own is None:
                own = next((r["learning_rate"] for r in rows if r["method"] == method), None)
            values = values_of(rows, main=main, task=task, method=method, rate=own, step=step, test=test)
            cells.append("" if values is None else str(figure_of(values)))
        lines.append(f"| {task} | {test} | {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _abilities(backbones: Sequence[dict[str, Any]]) -> str:
    lines = ["What the backbones can do, accuracy in percent on 500 new questions.\n"]
    lines.append("| question | " + " | ".join(f"seed {one['backbone']}" for one in backbones) + " |")
    lines.append("| --- |" + " ---: |" * len(backbones))
    for name in backbones[0]["abilities"] if backbones else ():
        cells = [f"{100 * one['abilities'][name]:.1f}" for one in backbones]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _draw(rows: Sequence[dict[str, Any]], rate: float, path: Path) -> None:
    """Learning curves in domain, and the accuracy under shift before and after tuning."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, grid = plt.subplots(
        len(ATTRIBUTES), len(tasks), figsize=(4 * len(tasks), 3 * len(ATTRIBUTES)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    every = columns(rows)
    for line, main in zip(grid, ATTRIBUTES, strict=True):
        for axes, task in zip(line, tasks, strict=True):
            test = "test" if any(c[0] == task and c[2] == "test" for c in every) else "oppose"
            steps = [step for name, step, kind in every if (name, kind) == (task, test)]
            for method in DRAWN:
                found = [
                    values_of(rows, main=main, task=task, method=method, rate=rate, step=step, test=test)
                    for step in steps
                ]
                points = [(s, figure_of(v)) for s, v in zip(steps, found, strict=True) if v is not None]
                axes.errorbar(
                    [step for step, _ in points],
                    [one.mean for _, one in points],
                    yerr=np.array([(one.mean - one.low, one.high - one.mean) for _, one in points]).T.clip(0),
                    label=method, marker="o", markersize=3, capsize=2,
                )  # fmt: skip
            axes.set_title(f"{main}: {task}, {test}", fontsize=8)
            axes.set_xlabel("tuning steps")
        line[0].set_ylabel("accuracy in percent")
    grid[0, 0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
