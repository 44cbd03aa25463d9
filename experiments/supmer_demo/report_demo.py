"""The demonstration's table and figure, with intervals that respect which runs share a seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from starts import VARIANTS
from world import ATTRIBUTES

from metashot.base.files import read_lines, write_atomic
from metashot.engine.metrics.statistics import Interval

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "supmer_demo"
from matplotlib import pyplot as plt  # noqa: E402

Floats = NDArray[np.float64]
STARTS = ("vocabulary", *VARIANTS)
"""Prompts that are tuned: two controls, then the two that are meta-learned."""
METHODS = (
    *STARTS,
    *(f"{start}, psi" for start in STARTS),
    *(f"{start}, AdamW" for start in STARTS),
    "PEFT prompt tuning",
    "full fine-tuning",
    "in context",
)
PAIRS = (
    *((first, second) for first in STARTS[2:] for second in STARTS[:2]),
    *((first, f"{second}, AdamW") for first in STARTS[2:] for second in STARTS[:2]),
    *((f"{first}, AdamW", f"{second}, AdamW") for first in STARTS[2:] for second in STARTS[:2]),
    *((f"{start}, psi", start) for start in STARTS),
)
"""Whose difference is shown with an interval of its own: both saw the same backbones, seeds and examples."""
DRAWS = 2000


def in_words(figure: Interval) -> str:
    """`mean (low to high)`."""
    return f"{figure.value:.1f} ({figure.low:.1f} to {figure.high:.1f})"


@lru_cache
def bootstrap_weights(backbones: int, meta_seeds: int, data_seeds: int) -> Floats:
    """Weights of every run in each resampling, [draws, backbones, meta seeds, data seeds], each summing to 1.

    Backbones are resampled, meta seeds within each of them, and data seeds once for all runs, since every run sees
    the same draws of examples. Source: A. Owen, The pigeonhole bootstrap, 2007, with one nested factor.
    """
    generator = np.random.default_rng(0)
    chosen = generator.multinomial(backbones, np.full(backbones, 1 / backbones), size=DRAWS)
    meta = generator.multinomial(meta_seeds * chosen, np.full(meta_seeds, 1 / meta_seeds))
    data = generator.multinomial(data_seeds, np.full(data_seeds, 1 / data_seeds), size=DRAWS)
    weights = (meta[..., None] * data[:, None, None, :]).astype(np.float64)
    return weights / weights.sum(axis=(1, 2, 3), keepdims=True)


def figure_of(values: Floats) -> Interval:
    """Mean and percentile interval of accuracies [backbones, meta seeds, data seeds], 0..1."""
    drawn = (bootstrap_weights(*values.shape) * values).sum(axis=(1, 2, 3))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(100 * float(values.mean()), 100 * float(low), 100 * float(high))


def values_of(
    rows: Sequence[dict[str, Any]], *, main: str, task: str, method: str, step: int, test: str
) -> Floats | None:
    """Accuracies [backbones, meta seeds, data seeds] of one figure, or None; a backbone that lacks runs is left out."""
    found = {
        (row["backbone"], row["meta_seed"], row["data_seed"]): row["curve"][str(step)][test]
        for row in rows
        if (row["main"], row["task"], row["method"]) == (main, task, method)
        and test in row["curve"].get(str(step), {})
    }
    seeds = [sorted({key[axis] for key in found}) for axis in range(3)]
    whole = [b for b in seeds[0] if all((b, m, d) in found for m in seeds[1] for d in seeds[2])]
    if not whole:
        return None
    return np.array([[[found[b, m, d] for d in seeds[2]] for m in seeds[1]] for b in whole])


def columns(rows: Sequence[dict[str, Any]], task: str) -> list[tuple[str, int]]:
    """(test set, step) of every figure of a task."""
    found = {
        (test, int(step))
        for row in rows
        if row["task"] == task
        for step, at in row["curve"].items()
        for test in at
    }
    tests = ("test", "source", "free", "oppose")
    return sorted(found, key=lambda key: (tests.index(key[0]), key[1]))


def write_report(output: Path, work: Path) -> str:
    """Write `table.md` and `curves.svg` below `output` from its `results.jsonl`, and return the table."""
    everything = list(read_lines(output / "results.jsonl"))
    rows = [row for row in everything if "method" in row]
    spent = [row["cpu_seconds"] for row in everything if "cpu_seconds" in row]
    backbones = [json.loads(path.read_text()) for path in sorted(work.glob("backbone-*/abilities.json"))]
    seconds = sum(spent) + sum(one["cpu_seconds"] for one in backbones)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    parts = [_table(rows, ATTRIBUTES, task) for task in tasks]
    parts += [_table(rows, (main,), task) for main in ATTRIBUTES for task in tasks]
    parts += [_differences(rows, task) for task in tasks]
    parts.append(_held_out([row for row in everything if "start" in row]))
    parts.append(_abilities(backbones))
    parts.append(f"{len(spent)} jobs, {seconds / 60:.1f} CPU minutes in all.\n")
    text = "\n".join(parts)
    write_atomic(output / "table.md", text)
    _draw(rows, output / "curves.svg")
    return text


def over_settings(rows: Sequence[dict[str, Any]], mains: Sequence[str], **figure: Any) -> Floats | None:
    """`values_of` in several settings, their backbones one after the other; None unless every setting has them."""
    found = [values_of(rows, main=main, **figure) for main in mains]
    known = [values for values in found if values is not None]
    return np.concatenate(known) if len(known) == len(found) else None


def _table(rows: Sequence[dict[str, Any]], mains: Sequence[str], task: str) -> str:
    shown = columns(rows, task)
    heads = [f"step {step}" if test == "test" else f"{test}, step {step}" for test, step in shown]
    lines = [
        f"Clusters about {' or '.join(mains)}; {task}. Accuracy in percent (95 % interval).\n",
        "| start | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for method in METHODS:
        found = [over_settings(rows, mains, task=task, method=method, step=s, test=t) for t, s in shown]
        cells = ["" if values is None else in_words(figure_of(values)) for values in found]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _differences(rows: Sequence[dict[str, Any]], task: str) -> str:
    """Paired differences over both settings, their backbones pooled; tuned figures only."""
    shown = [(test, step) for test, step in columns(rows, task) if step]
    heads = [f"step {step}" if test == "test" else f"{test}, step {step}" for test, step in shown]
    lines = [
        f"Differences in points over both settings (95 % interval); {task}.\n",
        "| first - second | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for first, second in PAIRS:
        cells: list[str] = []
        for test, step in shown:
            one, two = (
                over_settings(rows, ATTRIBUTES, task=task, method=method, step=step, test=test)
                for method in (first, second)
            )
            cells.append(in_words(figure_of(one - two)) if one is not None and two is not None else "")
        lines.append(f"| {first} - {second} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _held_out(trained: Sequence[dict[str, Any]]) -> str:
    """Loss on held-out meta-tasks after an inner step: of the start that was kept, and how many were made."""
    lines = [
        "Loss on held-out meta-tasks after an inner step, in nats (guessing: 0.69), of the starts that were kept.\n",
        "| start | median | largest | meta-trainings | starts |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in dict.fromkeys(row["start"] for row in trained):
        losses = [row["held_out_losses"] for row in trained if row["start"] == name]
        kept = [min(one) for one in losses]
        lines.append(
            f"| {name} | {np.median(kept):.3f} | {max(kept):.3f} | {len(kept)} | {sum(map(len, losses))} |"
        )
    return "\n".join(lines) + "\n"


def _abilities(backbones: Sequence[dict[str, Any]]) -> str:
    """Accuracy on new questions by what is asked, lowest over forms and phrases."""
    lines = [
        "What the backbones can do: lowest accuracy in percent over all kinds of new questions.\n",
        "| backbone | asked, told | habit, not told | the other attribute, not told | starts given up before |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one in backbones:
        other = one["main"]
        by_kind: dict[str, list[float]] = {"told": [], "habit": [], "other": []}
        for name, accuracy in one["abilities"].items():
            kind = "other" if name.startswith(other) else "habit"
            by_kind[kind if name.endswith("not told") else "told"].append(100 * accuracy)
        cells = [*(f"{min(values):.1f}" for values in by_kind.values()), str(one["given_up"])]
        lines.append(f"| clusters about {other}, seed {one['backbone']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Learning curves in domain, and the accuracy under shift before and after tuning."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, grid = plt.subplots(
        len(ATTRIBUTES), len(tasks), figsize=(4 * len(tasks), 3 * len(ATTRIBUTES)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for line, main in zip(grid, ATTRIBUTES, strict=True):
        for axes, task in zip(line, tasks, strict=True):
            shown = columns(rows, task)
            test = "test" if shown[0][0] == "test" else "oppose"
            steps = [step for name, step in shown if name == test]
            for method in STARTS:
                found = [
                    values_of(rows, main=main, task=task, method=method, step=s, test=test) for s in steps
                ]
                points = [(s, figure_of(v)) for s, v in zip(steps, found, strict=True) if v is not None]
                spread = [
                    (max(0.0, one.value - one.low), max(0.0, one.high - one.value)) for _, one in points
                ]
                axes.errorbar(
                    [step for step, _ in points],
                    [one.value for _, one in points],
                    yerr=np.array(spread).T if spread else None,
                    label=method,
                    marker="o",
                    markersize=3,
                    capsize=2,
                )
            axes.set_title(f"{main}: {task}, {test}", fontsize=8)
            axes.set_xlabel("tuning steps")
        line[0].set_ylabel("accuracy in percent")
    grid[0, 0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
