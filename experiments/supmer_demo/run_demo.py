"""Meta-train on the demo corpus, tune four sets with and without what was learned, then print and draw the comparison.

    python experiments/supmer_demo/run_demo.py --data-root <folder with SST-2/train.json ...>

Started again, it continues: checkpoints and finished cells are kept below `--results-root`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from engine.files import read_lines

METHODS = ("soft_prompt", "supmer")
HERE = Path(__file__).parent


def run(*overrides: str) -> None:
    """One `run.py` job of the experiment."""
    subprocess.run(
        [sys.executable, "run.py", "experiment=supmer_demo", *overrides], cwd=HERE.parents[1], check=True
    )


def folder(root: Path, method: str) -> Path:
    """Output folder of a method."""
    return root / "supmer_demo" / method


def comparison(root: Path) -> Table:
    """Mean and deviation over data seeds, in percent."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for method in METHODS:
        for row in read_lines(folder(root, method) / "results.jsonl"):
            values[row["task"]][method].append(100 * row["value"])
    table = Table("task", *METHODS, "runs", title="accuracy in percent, mean +- deviation over data seeds")
    for task, by_method in values.items():
        cells = [
            f"{fmean(v):.1f} +- {stdev(v) if len(v) > 1 else 0.0:.1f}" if (v := by_method[m]) else "-"
            for m in METHODS
        ]
        table.add_row(task, *cells, str(max(map(len, by_method.values()))))
    return table


def draw(root: Path, path: Path) -> None:
    """Training loss of every run."""
    figure, axes = plt.subplots()
    for method, colour in zip(METHODS, ("tab:blue", "tab:orange"), strict=True):
        for row in read_lines(folder(root, method) / "tuning.jsonl"):
            steps = [point["step"] for point in row["curve"]]
            axes.plot(steps, [point["train_loss"] for point in row["curve"]], color=colour, alpha=0.5)
        axes.plot([], [], color=colour, label=method)
    axes.set(xlabel="step", ylabel="training loss in nats")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Run all, print the table, save the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--results-root", type=Path, default=Path("outputs"))
    arguments = parser.parse_args()
    root = arguments.results_root.resolve()
    run(
        "stage=[prepare,train]",
        f"results_root={root}",
        f"hydra.run.dir={root}/supmer_demo/train",
        "logger=jsonl",
    )
    for method in METHODS:
        run(
            f"method={method}", f"results_root={root}", f"hydra.run.dir={folder(root, method)}",
            f"tuning.data_root={arguments.data_root}",
        )  # fmt: skip
    Console().print(comparison(root))
    draw(root, HERE / "curves.png")


if __name__ == "__main__":
    main()
