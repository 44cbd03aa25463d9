"""The family that tunes prompts, for the driver of cells: one training a (task, data seed, seed), tested on its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

from filelock import FileLock

from metashot.base.files import append_lines, read_lines, write_json
from metashot.engine.cells.family import CellKey, Family, Meter, Names, Work
from metashot.engine.cells.prompts import CellPrompt
from metashot.engine.cells.results import FinishedCell, Result
from metashot.engine.models.loading import LanguageModel
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
from metashot.metaprompt.tuning.cuts import cut_notes
from metashot.metaprompt.tuning.starting_point import StartingPoint, starting_point

TUNING_FILE = "tuning.jsonl"
SUMMARY_FILE = "tuning_summary.json"


class TunedCells(Family):
    """Cells of prompt tuning. A training is one work, and its test tasks are the cells that come of it.

    The curve of each training goes to `tuning.jsonl` of the run's folder and a tuned prompt to `prompts/`, the
    deviations over runs to `tuning_summary.json`.

    Args:
        settings: what to tune, on what.
        language_model: left as it is.
        output: the run's folder.
    """

    def __init__(self, settings: TuneSettings, language_model: LanguageModel, output: Path) -> None:
        self.names = Names(settings.setting, settings.method, language_model.spec.name)
        self._settings, self._model, self._output = settings, language_model, output
        self._trainings: dict[Work, tuple[LoadedTask, int, int]] = {}

    @cached_property
    def _backbone(self) -> Backbone:
        return make_backbone(self._model)

    @cached_property
    def _start(self) -> StartingPoint:
        return starting_point(self._settings, self._model, self._backbone)

    @cached_property
    def tasks(self) -> list[LoadedTask]:
        """The settings' tasks with their test tasks.

        Raises:
            DataError, ConfigError: see `load_task`.
        """
        return [load_task(name, self._settings, self._model) for name in self._settings.tasks]

    def work(self) -> Sequence[Work]:
        """A work for each (task, data seed, seed)."""
        settings = self._settings
        for task in self.tasks:
            for data_seed in settings.data_seeds:
                for seed in settings.train_seeds:
                    self._trainings[self._work(task, data_seed, seed)] = (task, data_seed, seed)
        return list(self._trainings)

    def _work(self, task: LoadedTask, data_seed: int, seed: int) -> Work:
        settings, label = self._settings, result_seed(self._settings, data_seed, seed)
        return Work(
            tuple(
                CellKey(
                    name,
                    label,
                    fingerprint(
                        settings,
                        self._model,
                        task,
                        test=name,
                        start=self._start,
                        data_seed=data_seed,
                        seed=seed,
                    ),
                    len(settings.tested(rows.test)),
                )
                for name, (_, rows) in task.tests.items()
            ),
            rows=1,
        )

    def compute(self, work: Work, rows: Sequence[int], meter: Meter) -> Sequence[TunedCell]:
        """Train once."""
        del rows
        task, data_seed, seed = self._trainings[work]
        return [
            run_cell(
                self._settings, self._backbone, task, self._start, data_seed=data_seed, seed=seed, at=meter.at
            )
        ]

    def finish(self, work: Work, answers: Sequence[TunedCell]) -> Sequence[FinishedCell]:
        """The cells of one training; what they never make again, once they are stored, is written first."""
        (tuned,) = answers
        self._keep(work, tuned)
        task, _, _ = self._trainings[work]
        return [
            finished_cell(
                self._settings, self._model, task,
                test=key.task, tuned=tuned, label_seed=key.seed, print_=key.fingerprint,
            )
            for key in work.cells
        ]  # fmt: skip

    def _keep(self, work: Work, tuned: TunedCell) -> None:
        """The prompt, and the curve as one line of `tuning.jsonl`."""
        task, data_seed, seed = self._trainings[work]
        name, path = task.renderer.task.name, self._output / TUNING_FILE
        if "prompt" in tuned.weights:
            file = f"{name}-{data_seed}-{seed}-{PROMPT_FILE}"
            save_prompt(self._output / "prompts" / file, tuned.weights["prompt"])
        row = {
            "task": name,
            "data_seed": data_seed,
            "seed": seed,
            "method": self._settings.method,
            "chosen_step": tuned.chosen_step,
            "curve": tuned.curve_rows(),
            "fingerprint": work.fingerprint,
        }
        self._output.mkdir(parents=True, exist_ok=True)
        with FileLock(self._output / ".tuning.lock"):
            lines = read_lines(path) if path.is_file() else ()
            if not any(line.get("fingerprint") == work.fingerprint for line in lines):
                append_lines(path, [row])

    def prompt(self, key: CellKey, result: Result) -> CellPrompt:
        """The test inputs in their pattern, cut as the model reads them."""
        del result
        return CellPrompt(key.task, key.seed, "", self._shown[key.task])

    @cached_property
    def _shown(self) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(map(renderer.shown, self._settings.tested(rows.test)))
            for task in self.tasks
            for name, (renderer, rows) in task.tests.items()
        }

    def notes(self, results: Sequence[Result]) -> Sequence[str]:
        """Which test inputs were cut."""
        return cut_notes(results, self._settings.max_tokens)

    def close(self, cells: Sequence[FinishedCell], output: Path) -> Sequence[str]:
        """Mean and deviation over the runs of each task."""
        found = deviations([cell.result for cell in cells])
        write_json(output / SUMMARY_FILE, found)
        return [
            f"{task}: {row['mean']:.1f} +- {row['deviation']:.1f} over {row['runs']} runs"
            for task, row in found.items()
        ]


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
