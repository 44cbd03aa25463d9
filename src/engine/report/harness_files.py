"""Results of lm-evaluation-harness as cells of ours.

The harness writes `results_<time>.json` and, with `--log_samples`, `samples_<task>_<time>.jsonl` beside it. Only
samples tell which examples were right, so a task without them cannot be compared and is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metashot.base.errors import OutputError
from metashot.base.files import read_lines, sha256_file
from metashot.base.json_text import read_json
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.metrics.classification import Metric

METHOD = "lm_eval"
"""What reports call a system that the harness ran."""
GRADED = {"exact_match": Metric.EXACT_MATCH, "f1": Metric.TOKEN_F1, "rougeL": Metric.ROUGE_L}
"""The harness\'s names of metrics that grade single answers."""


@dataclass(frozen=True, slots=True)
class HarnessRun:
    """One results file.

    Attributes:
        cells: a cell for each task that has samples.
        without_samples: tasks that have none.
    """

    cells: tuple[FinishedCell, ...]
    without_samples: tuple[str, ...]


def harness_results_files(folder: Path) -> list[Path]:
    """The harness's own results files in a folder, oldest first."""
    return [path for path in sorted(folder.glob("results_*.json")) if _is_harness(path)]


def _is_harness(path: Path) -> bool:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return False
    own = isinstance(content, dict) and content.get("model_source") == "metashot"
    return isinstance(content, dict) and {"configs", "n-shot", "config"} <= content.keys() and not own


def read_harness_run(path: Path) -> HarnessRun:
    """Read a results file and the samples beside it.

    Raises:
        OutputError: no results file of the harness, or samples of a kind that has no right answers.
    """
    try:
        content = read_json(path)
        tasks, shots, config = content["configs"], content["n-shot"], content["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            str(path),
            f"is no results file of lm-evaluation-harness ({error})",
            "leave this folder out of `runs`",
        ) from None
    stamp = path.stem.removeprefix("results_")
    cells: list[FinishedCell] = []
    lacking: list[str] = []
    for task, task_config in tasks.items():
        samples = path.with_name(f"samples_{task}_{stamp}.jsonl")
        if not samples.is_file():
            lacking.append(task)
            continue
        result = {
            "setting": "lm_eval",
            "method": METHOD,
            "model": _model_name(content),
            "task": task,
            "seed": int(config.get("fewshot_seed") or 0),
            "k": int(shots.get(task, 0)),
        }
        cells.append(_cell(samples, task_config, result))
    return HarnessRun(tuple(cells), tuple(lacking))


def _model_name(content: Mapping[str, Any]) -> str:
    arguments = content["config"].get("model_args") or {}
    given = arguments.get("pretrained") if isinstance(arguments, dict) else None
    return Path(str(given or content.get("model_name") or content["config"].get("model", "model"))).name


def _cell(path: Path, config: Mapping[str, Any], result: dict[str, Any]) -> FinishedCell:
    rows = [row for row in read_lines(path) if row.get("filter", "none") in ("none", config.get("filter"))]
    choice = config.get("output_type") == "multiple_choice"
    read = _choice_prediction if choice else _generated_prediction
    fingerprint = sha256_file(path)
    try:
        predictions = tuple(
            read(row, config, {"task": result["task"], "seed": result["seed"], "fingerprint": fingerprint})
            for row in rows
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise OutputError(
            str(path),
            f"holds samples of a kind that cannot be compared ({error!r})",
            "leave this folder out of `runs`",
        ) from None
    metric = Metric.ACCURACY if choice else next((m for name, m in GRADED.items() if name in rows[0]), None)
    if metric is None or not predictions:
        raise OutputError(str(path), "has no metric of single examples", "leave this folder out of `runs`")
    grades = [p.prediction == p.gold if choice else (p.score or 0.0) for p in predictions]
    value = sum(map(float, grades)) / len(grades)
    return FinishedCell(
        Result(**result, metric=metric.value, value=value, n=len(predictions), fingerprint=fingerprint),
        predictions,
    )


def _choice_prediction(
    row: Mapping[str, Any], config: Mapping[str, Any], where: dict[str, Any]
) -> Prediction:
    arguments = [
        row["arguments"][name]
        for name in sorted(row["arguments"], key=lambda name: int(name.rpartition("_")[2]))
    ]
    context = arguments[0]["arg_0"]
    if any(one["arg_0"] != context for one in arguments[1:] if one["arg_0"]):
        raise ValueError("choices stand in the input")
    delimiter = str(config.get("target_delimiter", " "))
    # Unconditional log-likelihoods of `acc_mutual_info` follow, with an empty context.
    kept = [one["arg_1"].removeprefix(delimiter) for one in arguments if one["arg_0"] == context]
    sums = [-float(answer[0]) for answer in row["filtered_resps"][: len(kept)]]
    target = row["target"]
    gold = kept[int(target)] if str(target).lstrip("-").isdigit() and target not in kept else str(target)
    best = min(range(len(kept)), key=lambda place: (sums[place], place))
    return Prediction(
        **where,
        index=int(row["doc_id"]),
        gold=gold,
        prediction=kept[best],
        options=tuple(kept),
        nll=tuple(sums),
        sum_nll=tuple(sums),
        n_tokens=(),
        n_chars=tuple(map(len, kept)),
        n_bytes=tuple(len(text.encode("utf-8")) for text in kept),
        null_sum_nll=(),
        null_n_tokens=(),
    )


def _generated_prediction(
    row: Mapping[str, Any], config: Mapping[str, Any], where: dict[str, Any]
) -> Prediction:
    answer, target = row["filtered_resps"][0], row["target"]
    return Prediction(
        **where,
        index=int(row["doc_id"]),
        gold=str(target[0] if isinstance(target, list) else target),
        prediction=str(answer),
        options=(),
        nll=(),
        sum_nll=(),
        n_tokens=(),
        n_chars=(),
        n_bytes=(),
        null_sum_nll=(),
        null_n_tokens=(),
        score=float(next(row[name] for name in GRADED if name in row)),
    )
