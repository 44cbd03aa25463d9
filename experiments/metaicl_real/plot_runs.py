"""Differences of trained and raw by task, and the training's loss by task: `plot_runs.py <comparison.json> <training.json> <out.svg>`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

BINS = 12
"""Points of a loss curve, each a mean over neighbouring steps."""


def main(comparison: Path, training: Path, out: Path) -> None:
    """One panel of differences by calibration, with the interval of their mean, and one of losses."""
    plt.rcParams["svg.hashsalt"] = "metashot"
    found = json.loads(comparison.read_text(encoding="utf-8"))
    rows = json.loads(training.read_text(encoding="utf-8"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    tasks = [*next(iter(found.values()))["tasks"], "mean"]
    for place, (rule, one) in enumerate(found.items()):
        gains = [values["trained"] - values["raw"] for values in one["tasks"].values()]
        heights = [number + 0.6 * ((place + 0.5) / len(found) - 0.5) for number in range(len(tasks))]
        (points,) = left.plot([*gains, one["difference"]], heights, "o", label=f"calibration {rule}")
        left.plot(one["interval"], [heights[-1]] * 2, color=points.get_color())
    left.axvline(0, color="gray", linewidth=1)
    left.set(
        yticks=range(len(tasks)),
        yticklabels=tasks,
        xlabel="trained minus raw, points; line: 95 % of the mean",
    )
    left.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.3, -0.16), ncols=3)
    names = sorted({key for row in rows for key in row if key.startswith("train/loss/")})
    for name in names:
        seen = [(row["step"], row[name]) for row in rows if name in row]
        parts = np.array_split(np.array(seen), min(BINS, len(seen)))
        right.plot(
            *np.stack([part.mean(axis=0) for part in parts]).T,
            marker=".",
            label=name.removeprefix("train/loss/"),
        )
    right.set(xlabel="step", ylabel="loss over the options, nats")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
