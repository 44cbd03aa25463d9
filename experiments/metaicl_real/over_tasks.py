"""The difference of trained and raw with its interval over tasks, from the stored rows of a comparison.

    python experiments/metaicl_real/over_tasks.py experiments/metaicl_real/results/comparison_independent.json

The interval in `comparison*.json` resamples seeds and test rows of the same six tasks: it says how sure the figure is of
these tasks. This one takes the tasks for a draw of others (Student's t of the differences of tasks), so it says whether
another set of tasks would gain.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t


def interval_over_tasks(differences: list[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of differences, one a task, in their unit."""
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    reach = t.ppf((1 + level) / 2, len(differences) - 1) * error
    return float(np.mean(differences) - reach), float(np.mean(differences) + reach)


def main(paths: list[str]) -> None:
    """Print a row for each file and calibration."""
    table = Table("comparison", "calibration", "tasks", "difference", "over seeds and rows", "over tasks")
    for path in map(Path, paths):
        for rule, found in json.loads(path.read_text()).items():
            differences = [task["trained"] - task["raw"] for task in found["tasks"].values()]
            low, high = interval_over_tasks(differences)
            own_low, own_high = found["interval"]
            table.add_row(
                path.stem, rule, str(len(differences)), f"{np.mean(differences):+.1f}",
                f"{own_low:+.1f} to {own_high:+.1f}", f"{low:+.1f} to {high:+.1f}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
