"""Made-up output folders in the format of a run."""

import json
import random

import pytest

from metashot.base.json_text import sealed
from metashot.engine.cells.results import FinishedCell, Prediction, Result, cell_lines
from metashot.engine.metrics.classification import Metric, score
from metashot.engine.metrics.ranking import OptionCounts, best_option, option_scores
from metashot.engine.metrics.rules import Calibration, Normalization

SEEDS = (100, 13, 21)
TASKS = {
    "weather": (Metric.MACRO_F1, ("sunny", "rainy", "snowy and cold")),
    "mood": (Metric.MACRO_F1, ("happy", "sad")),
    "quiz": (Metric.ACCURACY, None),
}


def made_cell(
    task, seed, skill, *, method="direct", n=40, k=16, model="tiny", setting="demo", n_null=0, salt=""
):
    """A cell whose gold option gets `skill` nats less; the test examples depend on the task only."""
    metric, shared = TASKS.get(task, (Metric.MACRO_F1, ("yes", "no")))
    examples, noise = random.Random(task), random.Random(f"{task}{seed}{skill}{method}{k}{salt}")
    fingerprint = f"{task}-{seed if k else 0}-{method}-{model}-{k}-{setting}-{salt}"
    predictions = []
    for index in range(n):
        options = shared or tuple(f"answer {examples.randrange(10**6)}" for _ in range(4))
        gold = options[examples.randrange(len(options))]
        tokens = tuple(1 + len(option.split()) for option in options)
        chars = tuple(map(len, options))
        sums = tuple(
            round(count * (2 + noise.random()) - (skill if option == gold else 0), 6)
            for count, option in zip(tokens, options, strict=True)
        )
        nulls = tuple(tuple(round(t * (2 + noise.random()), 6) for t in tokens) for _ in range(n_null))
        counts = [OptionCounts(t, c, c) for t, c in zip(tokens, chars, strict=True)]
        (scores,) = option_scores(
            [[sums, *nulls]], [[counts] * (1 + n_null)],
            calibration=Calibration.PMI if n_null == 1 else Calibration.CONTEXTUAL if n_null else Calibration.NONE,
            normalization=Normalization.TOKEN_MEAN,
        )  # fmt: skip
        predictions.append(
            Prediction(
                task,
                seed,
                index,
                gold,
                options[best_option(scores)],
                options,
                tuple(scores),
                sums,
                tokens,
                chars,
                chars,
                nulls,
                (tokens,) * n_null,
                fingerprint,
            )
        )
    value = score(metric, [p.gold for p in predictions], [p.prediction for p in predictions])
    result = Result(setting, method, model, task, seed, k, metric.value, value, n, fingerprint)
    return result, predictions


def write_run(folder, cells, config=None):
    """An output folder with these cells."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [cell_lines(FinishedCell(result, tuple(predictions))) for result, predictions in cells]
    (folder / "results.jsonl").write_bytes(b"".join(row for row, _ in lines))
    (folder / "predictions.jsonl").write_bytes(b"".join(rows for _, rows in lines))
    (folder / "run.json").write_text(json.dumps(sealed({"format": 2, "config": config or {"k": 16}})))
    return folder


@pytest.fixture
def made():
    """`made(task, seed, skill, ...)`: one made-up cell."""
    return made_cell


@pytest.fixture
def written():
    """`written(folder, cells, config)`: an output folder."""
    return write_run


@pytest.fixture
def demo_runs(tmp_path):
    """Three methods and a k-curve over three tasks and three seeds."""
    root = tmp_path / "runs"
    plan = [("zero", 0, 0.6, 0), ("direct", 4, 0.8, 0), ("direct", 16, 1.2, 0), ("pmi", 16, 1.0, 1)]
    plan += [("channel", 4, 1.0, 0), ("channel", 16, 1.6, 0)]
    for method, k, skill, n_null in plan:
        cells = [
            made_cell(task, seed, skill, method=method, k=k, n_null=n_null)
            for task in TASKS
            for seed in (SEEDS if k else SEEDS[:1])
        ]
        write_run(root / f"{method}-{k}", cells, {"k": k, "method": {"name": method}})
    return root
