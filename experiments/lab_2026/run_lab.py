"""Selections, orders and calibrations since 2022 beside plain in-context learning: one command, started again where it ended.

Every arm is a run of its own below `--output`; an arm that is finished is not started again, and its cells are stored by
fingerprint as all cells are. At the end the report of all arms is written, and `results.json` with the lines of the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import metashot
from metashot.base.components.choices import choice_names
from metashot.base.errors import MetashotError
from metashot.base.json_text import read_json
from metashot.data.task import TaskType
from metashot.data.tasks.demo import DemoSource
from metashot.data.tasks.source import JsonlSource, TaskSource
from metashot.engine.cells.results import RUN_FILE
from metashot.engine.cells.summary import SUMMARY_FILE

SEEDS = (100, 13, 21, 42, 87)
CALIBRATIONS = (
    "direct", "pmi", "calibrated", "batch_calibrated", "domain_context", "generative_calibrated", "hidden_calibrated",
    "task_vector", "channel",
)  # fmt: skip
NOT_AN_ARM = ("protocol", "fixed")
"""What every other arm has, and what takes rows from the user."""


@dataclass(frozen=True)
class Arm:
    """What is changed against plain in-context learning.

    Attributes:
        kind: `selection`, `order` or `calibration`.
        name: of the arm.
        overrides: words of the command line.
    """

    kind: str
    name: str
    overrides: tuple[str, ...]


def arms(orders: Sequence[str]) -> list[Arm]:
    """Every calibration, every selection of `conf/selection` that asks nothing of the user, and these orders."""
    selections = [name for name in choice_names("selection") if name not in NOT_AN_ARM]
    return [
        *(Arm("calibration", name, (f"method={name}",)) for name in CALIBRATIONS),
        *(Arm("selection", name, (f"selection={name}",)) for name in selections),
        *(Arm("order", order, (f"selection.order={order}",)) for order in orders),
    ]


def label_tasks(source: TaskSource, k: int, seed: int) -> list[str]:
    """Tasks with one label set for all examples, which every arm can be run on."""
    found = [source.load(task, k=k, seed=seed) for task in source.tasks()]
    return [data.task for data in found if data.task_type is TaskType.CLASSIFICATION]


def run_arm(arm: Arm, common: Sequence[str], folder: Path) -> dict[str, Any]:
    """The summary of an arm, from its folder where it is finished."""
    done = folder / RUN_FILE
    if not done.is_file() or read_json(done).get("status") != "finished":
        metashot.evaluate([*common, *arm.overrides], folder)
    mean = read_json(folder / SUMMARY_FILE)["mean"]
    return {
        "kind": arm.kind,
        "arm": arm.name,
        **{name: round(mean[name], 2) for name in ("value", "low", "high")},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The lines of `results.json` as Markdown, with the difference of each mean to plain in-context learning."""
    plain = {
        (row["data"], row["model"], row["k"]): row["value"]
        for row in rows
        if row["arm"] == "direct" and "value" in row
    }
    lines = [
        "| data | model | k | changed | arm | mean | 95 % interval | to direct |",
        "| --- | --- | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        head = f"| {row['data']} | {row['model']} | {row['k']} | {row['kind']} | {row['arm']} |"
        base = plain.get((row["data"], row["model"], row["k"]))
        if "left_out" in row:
            lines.append(f"{head} left out: {row['left_out']} | | |")
            continue
        difference = "" if base is None else f"{row['value'] - base:+.1f}"
        lines.append(f"{head} {row['value']:.1f} | {row['low']:.1f} to {row['high']:.1f} | {difference} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run what is left, report, write the lines of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of all arms")
    parser.add_argument(
        "--metaicl", type=Path, help="folder of real tasks in MetaICL's layout; left out without"
    )
    parser.add_argument("--models", nargs="+", default=["smollm2_135m", "gemma3_270m"])
    parser.add_argument("--k", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument(
        "--limit", type=int, help="test rows of a task, a sample that tables mark; all without"
    )
    parser.add_argument("--arms", nargs="+", help="names of arms, of all kinds; all without")
    parser.add_argument(
        "--orders",
        nargs="+",
        default=["1", "2", "nearest_last", "globale", "locale"],
        help="values of selection.order",
    )
    parser.add_argument("--quick", action="store_true", help="seconds: random weights, two tasks, four rows")
    given = parser.parse_args()
    if given.quick:
        given.models, given.k, given.seeds, given.limit = ["tiny"], [2], [100, 13], 4
    sources: dict[str, tuple[TaskSource, list[str]]] = {"demo": (DemoSource(), ["data=demo"])}
    if given.metaicl is not None:
        sources["metaicl"] = (JsonlSource(given.metaicl), ["data=jsonl", f"data.root={given.metaicl}"])
    rows: list[dict[str, Any]] = []
    folders: list[Path] = []
    for name, (source, words) in sources.items():
        tasks = label_tasks(source, given.k[0], given.seeds[0])[: 2 if given.quick else None]
        for model in given.models:
            for k in given.k:
                common = [
                    *words, f"data.tasks=[{','.join(tasks)}]", f"model={model}", f"k={k}",
                    f"seeds=[{','.join(map(str, given.seeds))}]", f"results_root={given.output / 'store'}",
                    *([] if given.limit is None else [f"data.limit={given.limit}"]),
                ]  # fmt: skip
                for arm in arms(given.orders):
                    if given.arms and arm.name not in given.arms:
                        continue
                    folder = given.output / name / model / f"k{k}" / f"{arm.kind}-{arm.name}"
                    try:
                        row = run_arm(arm, common, folder)
                    except MetashotError as error:
                        row = {"kind": arm.kind, "arm": arm.name, "left_out": str(error)}
                    else:
                        folders.append(folder)
                    rows.append({"data": name, "model": model, "k": k, **row})
                    (given.output / "results.json").write_text(
                        json.dumps(rows, indent=1) + "\n", encoding="utf-8"
                    )
    (given.output / "table.md").write_text(table(rows), encoding="utf-8")
    words = [f"runs=[{','.join(map(str, folders))}]", f"results_root={given.output / 'store'}"]
    metashot.evaluate(["stage=report", *words], given.output / "report")
    print(
        f"{len(rows)} arms, {sum('left_out' in row for row in rows)} left out: {given.output / 'results.json'}"
    )


if __name__ == "__main__":
    main()
