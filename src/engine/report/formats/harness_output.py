"""Figures of a report in the results format of lm-evaluation-harness, one file a system."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from scipy.stats import norm

from metashot.engine.metrics.classification import AnyMetric, Metric
from metashot.engine.metrics.statistics import TaskOutcomes, bootstrap_mean
from metashot.engine.report.reading.harness_files import GRADED, NORMALIZED, OWN_FILE, is_harness_method
from metashot.engine.report.systems.results import SystemResults

_NAMES: dict[AnyMetric, str] = {
    Metric.ACCURACY: "acc",
    Metric.MACRO_F1: "f1",
    **{metric: name for name, metric in GRADED.items()},
}


def harness_files(answers: Sequence[SystemResults], draws: int, level: float, seed: int) -> dict[str, str]:
    """Path and content of a `results_metashot.json` for every system that the harness did not run itself.

    Args:
        answers: the systems of a report.
        draws: bootstrap resamplings of the standard errors.
        level: confidence level of the intervals that they are read off.
        seed: of the resampling.
    """
    files: dict[str, str] = {}
    for row in answers:
        if is_harness_method(row.system.method):
            continue
        one = row.system
        name = re.sub(
            r"[^\w.-]+",
            "_",
            "-".join(filter(None, (one.setting, one.method, one.model, f"k{one.k}", one.extras))),
        )
        content = json.dumps(harness_results(row, draws, level, seed), indent=1)
        files[f"lm_eval/{name}/{OWN_FILE}"] = content + "\n"
    return files


def harness_results(row: SystemResults, draws: int, level: float, seed: int) -> dict[str, Any]:
    """The content of one results file: values 0..1, means over seeds, with standard errors over seeds and examples."""
    system, tasks = row.system, list(row.outcomes)
    names = {task: _name(row, row.outcomes[task].metric) for task in tasks}
    return {
        "results": {
            task: _task_results(row.outcomes[task], names[task], draws, level, seed) for task in tasks
        },
        "group_subtasks": {task: [] for task in tasks},
        "configs": {task: {"task": task, "num_fewshot": system.k} for task in tasks},
        "versions": {task: "metashot" for task in tasks},
        "n-shot": {task: system.k for task in tasks},
        "higher_is_better": {task: {names[task]: True} for task in tasks},
        "n-samples": {
            task: {
                "original": row.outcomes[task].gold.shape[1],
                "effective": row.outcomes[task].gold.shape[1],
            }
            for task in tasks
        },
        "config": {"model": "metashot", "model_args": {"pretrained": system.model, "method": system.method}},
        "model_source": "metashot",
        "model_name": system.model,
    }


def _name(row: SystemResults, metric: AnyMetric) -> str:
    """The harness's name of a metric; accuracy by score per character is another one than by the sum."""
    by_length = row.runs and all(run.config.get("method.normalization") == "characters" for run in row.runs)
    return NORMALIZED if metric is Metric.ACCURACY and by_length else _NAMES.get(metric, metric.value)


def _task_results(outcome: TaskOutcomes, name: str, draws: int, level: float, seed: int) -> dict[str, Any]:
    mean = bootstrap_mean([outcome], draws, level, seed).mean
    error = (mean.high - mean.low) / (2 * float(norm.ppf((1 + level) / 2)))
    return {
        "name": outcome.task,
        "alias": outcome.task,
        "sample_len": outcome.gold.shape[1],
        f"{name},none": mean.value,
        f"{name}_stderr,none": error,
    }
