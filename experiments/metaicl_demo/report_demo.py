"""Table and plot of the demo from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % confidence interval over seeds (Student's t), in percent."""
    array = 100 * np.asarray(values)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5
    return float(array.mean()), float(half)


def write_report(rows: Sequence[Mapping[str, Any]], output: Path, sizes: Mapping[str, Any]) -> None:
    """Write `table.md` and `accuracy.svg`, and print the table."""
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    shots = sorted({int(row["k"]) for row in rows})
    figures = {
        (method, k): interval([row["accuracy"] for row in rows if (row["method"], row["k"]) == (method, k)])
        for method in methods
        for k in shots
        if any((row["method"], row["k"]) == (method, k) for row in rows)
    }
    lines = ["| accuracy, % | " + " | ".join(f"k={k}" for k in shots) + " |", "|---" * (len(shots) + 1) + "|"]
    for method in methods:
        cells = [
            "{:.1f} ± {:.1f}".format(*figures[method, k]) if (method, k) in figures else "" for k in shots
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    seeds = len({row["seed"] for row in rows})
    note = f"Mean and 95 % interval over {seeds} seeds; {', '.join(f'{key} {value}' for key, value in sizes.items())}."
    text = "\n".join([*lines, "", note, ""])
    (output / "table.md").write_text(text)
    print(text)
    _plot(figures, methods, output / "accuracy.svg")


def _plot(figures: Mapping[tuple[str, int], tuple[float, float]], methods: Sequence[str], path: Path) -> None:
    """Direct methods left, channel methods right; zero-shot methods are dashed lines with their interval."""
    plt.rcParams["svg.hashsalt"] = "metashot"
    shots = sorted({k for _, k in figures})
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for method in methods:
        axes = panels[int("channel" in method.lower())]
        points = sorted((k, *value) for (name, k), value in figures.items() if name == method)
        if len(points) > 1:
            axes.errorbar(*zip(*points, strict=True), marker="o", capsize=3, label=method)
        else:
            _, mean, half = points[0]
            axes.axhline(mean, linestyle="--", color="gray", label=method)
            axes.axhspan(mean - half, mean + half, color="gray", alpha=0.15)
    for axes, title in zip(panels, ("direct", "channel"), strict=True):
        axes.set(title=title, xlabel="demonstrations (k)", xticks=shots)
        axes.legend(fontsize=8, loc="lower right")
    panels[0].set_ylabel("accuracy on unseen families, %")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
