"""Meta-train on a corpus, tune four sets with and without what was learned, then print and draw the comparison.

    python experiments/supmer_smollm2/run_rows.py --data-root <folder with SST-2/train.json ...>

Rows: prompt tuning from vocabulary embeddings, the same from a prompt trained on all meta-tasks without an inner step,
the same from the meta-learned prompt, and SUPMER (that prompt and the meta-learned regularizer). Further overrides go to
every job: `corpus=text corpus.path=<folder> corpus.document=line`. Started again, it continues: checkpoints and finished cells are kept below `--results-root`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from metashot.base.files import read_lines
from metashot.engine.training.checkpoint import best_checkpoint

METHODS = {
    "soft_prompt": "tab:blue",
    "soft_prompt_multi_task": "tab:purple",
    "soft_prompt_meta_learned": "tab:green",
    "supmer": "tab:orange",
}
MULTI_TASK = ("supmer.inner_lr=0", "supmer.interpolate=false", "supmer.regularize=false")
HERE = Path(__file__).parent


def run(*overrides: str) -> None:
    """One `run.py` job of the experiment."""
    subprocess.run(
        [sys.executable, "run.py", "experiment=supmer_smollm2", *overrides], cwd=HERE.parents[1], check=True
    )


def folder(root: Path, job: str) -> Path:
    """Output folder of a job."""
    return root / "supmer_smollm2" / job


def trained(root: Path, job: str, overrides: tuple[str, ...]) -> Path:
    """Checkpoints of a meta-training; where they are complete nothing is computed."""
    checkpoints = folder(root, job) / "checkpoints"
    run(
        *overrides, "stage=[prepare,train]", f"hydra.run.dir={folder(root, job)}", "logger=jsonl",
        f"supmer.checkpoints={checkpoints}",
    )  # fmt: skip
    return checkpoints


def run_all(root: Path, data_root: str, overrides: list[str]) -> None:
    """Meta-training, then tuning of every row; what a row is stands behind the overrides of the command, so it holds."""
    common = (f"results_root={root}", *overrides)
    learned = {
        name: trained(root, name, (*common, *own))
        for name, own in (("train", ()), ("multi_task", MULTI_TASK))
    }
    rows = {
        "soft_prompt": ("method=soft_prompt",),
        "soft_prompt_multi_task": (
            "method=soft_prompt", "method.name=soft_prompt_multi_task",
            f"tuning.prompt_path={best_checkpoint(learned['multi_task'], higher_is_better=False)}",
        ),
        "soft_prompt_meta_learned": (
            "method=soft_prompt", "method.name=soft_prompt_meta_learned",
            f"tuning.prompt_path={best_checkpoint(learned['train'], higher_is_better=False)}",
        ),
        "supmer": ("method=supmer", f"supmer.checkpoints={learned['train']}"),
    }  # fmt: skip
    for name, own in rows.items():
        run(*common, f"hydra.run.dir={folder(root, name)}", f"tuning.data_root={data_root}", *own)


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
    means = {m: [fmean(row[m]) for row in values.values() if row[m]] for m in METHODS}
    table.add_row("mean", *(f"{fmean(v):.1f}" if v else "-" for v in means.values()), "")
    return table


def draw(root: Path, path: Path) -> None:
    """Meta-training and held-out query loss; training loss and development accuracy of tuning, mean over runs."""
    figure, (meta, loss, accuracy) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    _draw_meta_training(meta, folder(root, "train") / "metrics.jsonl")
    for method, colour in METHODS.items():
        curves: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for row in read_lines(folder(root, method) / "tuning.jsonl"):
            for point in row["curve"]:
                curves[point["step"]].append((point["train_loss"], point["select_accuracy"]))
        steps = sorted(curves)
        for axes, index in ((loss, 0), (accuracy, 1)):
            means = [fmean(point[index] for point in curves[step]) for step in steps]
            axes.plot(steps, means, color=colour, marker="o", label=method)
    loss.set(title="tuning, mean over tasks and seeds", xlabel="step", ylabel="training loss in nats")
    accuracy.set(title="tuning, mean over tasks and seeds", xlabel="step", ylabel="development accuracy")
    loss.legend()
    figure.savefig(path, dpi=100)


def _draw_meta_training(axes: Axes, path: Path) -> None:
    rows = list(read_lines(path))
    for key, marker, label in (
        ("train/loss", "", "training tasks"),
        ("held_out/query_loss_unadapted", "o", "held-out tasks, not adapted"),
        ("held_out/query_loss", "o", "held-out tasks, one inner step"),
    ):
        points = [(row["step"], row[key]) for row in rows if key in row]
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, marker=marker, label=label)
    axes.set(title="meta-training", xlabel="outer step", ylabel="query loss in nats")
    axes.legend()


def main() -> None:
    """Run all, print the table, save the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", required=True, help="folder of SST-2, sst-5, subj and cb")
    parser.add_argument("--results-root", type=Path, default=Path("outputs"))
    parser.add_argument("overrides", nargs="*", help="further overrides of run.py")
    arguments = parser.parse_args()
    root = arguments.results_root.resolve()
    run_all(root, arguments.data_root, arguments.overrides)
    Console().print(comparison(root))
    draw(root, root / "supmer_smollm2" / "curves.png")


if __name__ == "__main__":
    main()
