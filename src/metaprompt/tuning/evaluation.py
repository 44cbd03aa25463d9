"""`stage=evaluate` of the prompt methods: few-shot tuning over tasks, data seeds and seeds, into the results store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from metashot.base.files import append_lines, read_lines, write_json
from metashot.engine.cells.folder import CellPlace, RunFolder
from metashot.engine.cells.prompts import CellPrompt, write_prompts
from metashot.engine.cells.results import FinishedCell, Result, relabel
from metashot.engine.cells.store import ResultStore
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.learner import MetricSink
from metashot.metaprompt.backbone import Backbone, make_backbone
from metashot.metaprompt.meta.learner import PROMPT_FILE
from metashot.metaprompt.soft_prompt import save_prompt
from metashot.metaprompt.tuning.cell import (
    LoadedTask,
    TunedCell,
    fingerprint,
    finished_cell,
    load_task,
    result_seed,
    run_cell,
)
from metashot.metaprompt.tuning.config import TuneSettings
from metashot.metaprompt.tuning.starting_point import StartingPoint, starting_point

TUNING_FILE = "tuning.jsonl"
SUMMARY_FILE = "tuning_summary.json"


def evaluate_prompts(
    settings: TuneSettings,
    language_model: LanguageModel,
    output: Path,
    results_root: Path,
    *,
    notify: Callable[[str], None],
    sink: MetricSink | None = None,
    expect: Callable[[Mapping[CellPlace, str]], None] | None = None,
) -> list[FinishedCell]:
    """Tune and test every (task, data seed, training seed) cell that the store does not hold yet.

    Writes `results.jsonl`, `predictions.jsonl`, `prompts.jsonl` (the test inputs), `tuning.jsonl` (curve and chosen step of each cell), the tuned
    prompts and `tuning_summary.json` (deviations) into `output`.
    """
    tasks = [load_task(name, settings, language_model) for name in settings.tasks]
    backbone = make_backbone(language_model)
    start = starting_point(settings, language_model, backbone)
    store = ResultStore(results_root)
    plan = [(t, d, s) for t in tasks for d in settings.data_seeds for s in settings.train_seeds]
    prints = [
        {
            name: fingerprint(settings, language_model, task, name, start, data_seed, seed)
            for name in task.tests
        }
        for task, data_seed, seed in plan
    ]
    if any(store.get(print_) is None for row in prints for print_ in row.values()):
        store.check_writable()
    expected = {
        (name, result_seed(settings, data_seed, seed)): print_
        for (_, data_seed, seed), row in zip(plan, prints, strict=True)
        for name, print_ in row.items()
    }
    if expect is not None:
        expect(expected)
    folder = RunFolder(output, expected)
    shown = {
        name: tuple(map(renderer.shown, settings.tested(rows.test)))
        for task in tasks
        for name, (renderer, rows) in task.tests.items()
    }
    write_prompts(output, (CellPrompt(name, seed, "", shown[name]) for name, seed in expected))
    finished: list[FinishedCell] = []
    for number, ((task, data_seed, seed), row) in enumerate(zip(plan, prints, strict=True), start=1):
        for cell in _cell(settings, backbone, task, start, data_seed, seed, row, store, output):
            folder.add(cell)
            finished.append(cell)
            notify(
                f"[{number}/{len(plan)}] {settings.method} {cell.result.task} data seed {data_seed} seed {seed}:"
                f" accuracy {100 * cell.result.value:.1f}"
            )
            if sink is not None:
                mean = sum(row.result.value for row in finished) / len(finished)
                sink.log(
                    {
                        f"eval/{cell.result.task}/{cell.result.metric}_percent": 100 * cell.result.value,
                        "eval/mean_percent": 100 * mean,
                    },
                    len(finished),
                )
    folder.check_complete()
    write_json(output / SUMMARY_FILE, deviations([cell.result for cell in finished]))
    return finished


def _cell(
    settings: TuneSettings,
    backbone: Backbone,
    task: LoadedTask,
    start: StartingPoint,
    data_seed: int,
    seed: int,
    prints: Mapping[str, str],
    store: ResultStore,
    output: Path,
) -> list[FinishedCell]:
    """One training run with all its test tasks (`prints`: their fingerprints), from the store if it is there."""

    def stored() -> list[FinishedCell] | None:
        found = [store.get(print_) for print_ in prints.values()]
        names = {
            "setting": settings.setting,
            "method": settings.method,
            "model": backbone.language_model.spec.name,
        }
        label = result_seed(settings, data_seed, seed)
        whole = [relabel(cell, **names, seed=label) for cell in found if cell is not None]
        return whole if len(whole) == len(found) else None

    if (cells := stored()) is not None:
        return cells
    with store.lock(next(iter(prints.values()))):
        if (cells := stored()) is not None:
            return cells
        tuned = run_cell(settings, backbone, task, start, data_seed, seed)
        cells = [
            finished_cell(
                settings,
                backbone.language_model,
                task,
                name,
                tuned,
                result_seed(settings, data_seed, seed),
                prints[name],
            )
            for name in task.tests
        ]
        # Before the cells: once they are stored, nothing is trained again that could still be kept.
        _keep_training(settings, task.renderer.task.name, data_seed, seed, tuned, prints, output)
        for cell in cells:
            store.put(cell)
    return cells


def _keep_training(
    settings: TuneSettings,
    task: str,
    data_seed: int,
    seed: int,
    tuned: TunedCell,
    prints: Mapping[str, str],
    output: Path,
) -> None:
    """The prompt, and the curve as one line of `tuning.jsonl` for each training."""
    if "prompt" in tuned.weights:
        save_prompt(output / "prompts" / f"{task}-{data_seed}-{seed}-{PROMPT_FILE}", tuned.weights["prompt"])
    path = output / TUNING_FILE
    if path.is_file() and any(row.get("fingerprint") == prints[task] for row in read_lines(path)):
        return
    row = {
        "task": task,
        "data_seed": data_seed,
        "seed": seed,
        "method": settings.method,
        "chosen_step": tuned.chosen_step,
        "curve": tuned.curve_rows(),
        "fingerprint": prints[task],
    }
    append_lines(path, [row])


def deviations(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over runs of each task, in percent (0 for a single run)."""
    tasks: dict[str, list[float]] = {}
    for result in results:
        tasks.setdefault(result.task, []).append(100 * result.value)
    return {
        task: {
            "mean": round(fmean(values), 2),
            "deviation": round(stdev(values), 2) if len(values) > 1 else 0.0,
            "runs": len(values),
        }
        for task, values in tasks.items()
    }
