"""Trained against raw on the same rows and demonstrations, under several calibrations, with paired intervals.

`compare_runs.py <out.json> <raw run> <trained run> [<trained run> ...]`; a run is the output folder of an evaluation, or
several with different tasks, joined by commas. What the comparison reads of them is kept beside it, in
`<out>.rows.jsonl.gz`; `compare_runs.py <out.json>` alone recomputes everything from there. Every calibration is computed from the stored log-probabilities: those over
unlabelled training inputs for tasks that were evaluated with `method.calibration=batch`, none where it needs one fixed
label set and the task has options of its own in every row.

The mean over tasks of the mean over demonstration seeds, in percent. The interval of a difference resamples the
demonstration seeds and, within a task, the test rows (the same rows in every seed and on both sides), and the trained
runs where there are several; 2,000 draws, 95 %.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from metashot.base.files import read_lines
from metashot.engine.metrics.ranking import OptionCounts, best_option, option_scores
from metashot.engine.metrics.rules import Calibration, Normalization, calibration

CALIBRATIONS = ("none", "batch", "prior", "batch_transductive", "prior_transductive")
DRAWS = 2000
Cells = dict[str, dict[int, dict[str, Any]]]


READ = ("gold", "options", "sum_nll", "n_tokens", "n_chars", "n_bytes", "null_sum_nll", "null_n_tokens")
"""Of a row of `predictions.jsonl`."""


def kept_rows(out: Path) -> Path:
    """Where the rows of a comparison lie."""
    return out.with_suffix(".rows.jsonl.gz")


def keep(path: Path, runs: list[Cells]) -> None:
    """Write the rows of all runs, raw first, so that the comparison can be made again from this file alone."""
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        for run, cells in enumerate(runs):
            for task, seeds in cells.items():
                for seed, cell in seeds.items():
                    rows = [{key: row[key] for key in READ} for row in cell["rows"]]
                    line = {"run": run, "task": task, "seed": seed, "metric": cell["metric"], "rows": rows}
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def kept(path: Path) -> list[Cells]:
    """The runs that `keep` wrote."""
    runs: dict[int, Cells] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in map(json.loads, file):
            cell = {"metric": line["metric"], "rows": line["rows"]}
            runs.setdefault(line["run"], {}).setdefault(line["task"], {})[line["seed"]] = cell
    return [runs[number] for number in sorted(runs)]


def read(folders: str) -> Cells:
    """Per task and seed: metric, gold and option scores, from the files of an evaluation."""
    cells: Cells = {}
    for folder in map(Path, folders.split(",")):
        for row in read_lines(folder / "results.jsonl"):
            cells.setdefault(row["task"], {})[row["seed"]] = {"metric": row["metric"], "rows": []}
        for row in read_lines(folder / "predictions.jsonl"):
            cells[row["task"]][row["seed"]]["rows"].append(row)
    return cells


def predictions(rows: list[dict[str, Any]], rule: str) -> list[str]:
    """Answers of one cell; a calibration applies where all rows share their options and its scores are stored."""
    used = calibration(rule)
    one_set = len({tuple(row["options"]) for row in rows}) == 1
    if not one_set or any(len(row["null_sum_nll"]) < used.fewest for row in rows):
        used = Calibration.NONE
    scores = option_scores(
        [[row["sum_nll"], *row["null_sum_nll"]] for row in rows],
        [[_counts(row, row["n_tokens"]), *(_counts(row, n) for n in row["null_n_tokens"])] for row in rows],
        calibration=used,
        normalization=Normalization.TOKEN_MEAN,
    )
    return [row["options"][best_option(own)] for row, own in zip(rows, scores, strict=True)]


def _counts(row: dict[str, Any], tokens: list[int]) -> list[OptionCounts]:
    return [OptionCounts(*each) for each in zip(tokens, row["n_chars"], row["n_bytes"], strict=True)]


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


def main(out: Path, folders: list[str]) -> None:
    """Write all comparisons and print them as tables; without folders from the rows that were kept."""
    if folders:
        keep(kept_rows(out), [read(folder) for folder in folders])
    before, *after = kept(kept_rows(out))
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
    main(Path(sys.argv[1]), sys.argv[2:])
