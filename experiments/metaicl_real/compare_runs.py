"""Trained against raw on the same rows and demonstrations, under several calibrations, with paired intervals.

`compare_runs.py <out.json> <raw run> <trained run> [<trained run> ...]`; a run is the output folder of an evaluation.

The mean over tasks of the mean over demonstration seeds, in percent. The interval of a difference resamples the
demonstration seeds and, within a task, the test rows (the same rows in every seed and on both sides), and the trained
runs where there are several; 2,000 draws, 95 %.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from metashot.engine.metrics.rules import calibration

CALIBRATIONS = ("none", "batch_transductive", "prior_transductive")
DRAWS = 2000
Cells = dict[str, dict[int, dict[str, Any]]]


def read(folder: Path) -> Cells:
    """Per task and seed: metric, gold and option scores, from the files of an evaluation."""
    cells: Cells = {}
    for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cells.setdefault(row["task"], {})[row["seed"]] = {"metric": row["metric"], "rows": []}
    for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        cells[row["task"]][row["seed"]]["rows"].append(row)
    return cells


def predictions(rows: list[dict[str, Any]], rule: str) -> list[str]:
    """Answers of one cell; rules over test inputs apply where all rows share their options."""
    options = {tuple(sorted(row["options"])) for row in rows}
    used = calibration(rule if len(options) == 1 else "none")
    order = [{option: place for place, option in enumerate(sorted(row["options"]))} for row in rows]
    if len({len(places) for places in order}) > 1:
        return [row["options"][int(np.argmin(row["nll"]))] for row in rows]
    scores = np.array([[x for _, x in sorted(zip(row["options"], row["nll"], strict=True))] for row in rows])
    best = used.combine(scores, np.empty((0, *scores.shape))).argmin(axis=1)
    return [sorted(row["options"])[place] for row, place in zip(rows, best, strict=True)]


def value(metric: str, gold: np.ndarray, predicted: np.ndarray) -> float:
    """Accuracy, or F1 averaged over the labels that occur in gold."""
    if metric == "accuracy":
        return float((gold == predicted).mean())
    scores = []
    for label in np.unique(gold):
        hits = float(((gold == label) & (predicted == label)).sum())
        scores.append(2 * hits / float((gold == label).sum() + (predicted == label).sum()))
    return float(np.mean(scores))


def arrays(cells: Cells, rule: str) -> dict[str, tuple[str, list[np.ndarray], list[np.ndarray]]]:
    """Per task: metric, and gold and predicted label numbers of every seed."""
    found = {}
    for task, seeds in cells.items():
        metric = next(iter(seeds.values()))["metric"]
        gold, answers = [], []
        for seed in sorted(seeds):
            rows = seeds[seed]["rows"]
            names = {
                text: number
                for number, text in enumerate(sorted({o for row in rows for o in row["options"]}))
            }
            gold.append(np.array([names[row["gold"]] for row in rows]))
            answers.append(np.array([names[text] for text in predictions(rows, rule)]))
        found[task] = (metric, gold, answers)
    return found


def mean_of(data: Any, seeds: np.ndarray, places: dict[str, np.ndarray]) -> float:
    """Mean over tasks of the mean over `seeds`, on the test rows `places`."""
    tasks = [
        np.mean([value(metric, gold[s][places[task]], answers[s][places[task]]) for s in seeds])
        for task, (metric, gold, answers) in data.items()
    ]
    return 100 * float(np.mean(tasks))


def most_frequent(data: Any) -> float:
    """Mean share of a cell's answers that are its most frequent answer, in percent (multi-choice tasks left out)."""
    shares = [
        max(Counter(one.tolist()).values()) / len(one)
        for metric, _, answers in data.values()
        for one in answers
        if metric != "accuracy"
    ]
    return 100 * float(np.mean(shares))


def compare(raw: Cells, trained: list[Cells], rule: str) -> dict[str, Any]:
    """Means of both sides by task, and the difference with its interval."""
    ours, theirs = [arrays(cells, rule) for cells in trained], arrays(raw, rule)
    sizes = {task: len(gold[0]) for task, (_, gold, _) in theirs.items()}
    count = len(next(iter(theirs.values()))[1])
    everything = {task: np.arange(size) for task, size in sizes.items()}
    seeds = np.arange(count)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        picked = rng.integers(count, size=count)
        places = {task: rng.integers(size, size=size) for task, size in sizes.items()}
        runs = rng.integers(len(ours), size=len(ours))
        after = np.mean([mean_of(ours[run], picked, places) for run in runs])
        draws.append(after - mean_of(theirs, picked, places))
    by_task = {
        task: {
            "raw": mean_of({task: theirs[task]}, seeds, everything),
            "trained": float(np.mean([mean_of({task: one[task]}, seeds, everything) for one in ours])),
        }
        for task in theirs
    }
    before = mean_of(theirs, seeds, everything)
    after = [mean_of(one, seeds, everything) for one in ours]
    return {
        "raw": before,
        "trained": after,
        "difference": float(np.mean(after)) - before,
        "interval": np.percentile(draws, [2.5, 97.5]).tolist(),
        "most_frequent_answer": {
            "raw": most_frequent(theirs),
            "trained": float(np.mean([most_frequent(one) for one in ours])),
        },
        "tasks": by_task,
    }


def main(out: Path, raw: Path, trained: list[Path]) -> None:
    """Write all comparisons and print them as tables."""
    before, after = read(raw), [read(folder) for folder in trained]
    found = {rule: compare(before, after, rule) for rule in CALIBRATIONS}
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print("| task | " + " | ".join(f"raw, {rule} | trained, {rule}" for rule in found) + " |")
    print("| --- |" + " ---: |" * (2 * len(found)))
    for task in next(iter(found.values()))["tasks"]:
        cells = [f"{one['tasks'][task][side]:.1f}" for one in found.values() for side in ("raw", "trained")]
        print(f"| {task} | " + " | ".join(cells) + " |")
    means = [f"{x:.1f}" for one in found.values() for x in (one["raw"], float(np.mean(one["trained"])))]
    print("| mean | " + " | ".join(means) + " |")
    for rule, one in found.items():
        low, high = one["interval"]
        print(f"{rule}: {one['difference']:+.1f} ({low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
