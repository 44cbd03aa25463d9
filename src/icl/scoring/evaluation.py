"""Evaluate a method on tasks: one cell per (task, seed), each computed once and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from metashot.data.task import TaskData
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.folder import CellPlace, RunFolder
from metashot.engine.cells.prompts import write_prompts
from metashot.engine.cells.results import FinishedCell, relabel, with_cut_inputs
from metashot.engine.cells.store import ResultStore
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.scoring.makers import scorer_of
from metashot.engine.scoring.request import MakeScorer, Scorer, SharingScorer
from metashot.engine.training.ranks import barrier, leads, rank, sum_over_ranks, world_size
from metashot.icl.scoring.cell import Cell, PromptRules, build_cell, cut_note, read_back
from metashot.icl.scoring.cell_data import CellKey, cell_key, load_cells
from metashot.icl.scoring.evaluation_settings import EvaluateSettings, prompt_rules
from metashot.icl.scoring.generation import GenerateMethod, generate_answers
from metashot.icl.scoring.measured import finish_cell, finish_generated
from metashot.icl.scoring.prompt_record import cell_prompt


@dataclass(slots=True)
class EvaluationCost:
    """Tokens that a run computed, and what scoring every request alone would have computed.

    Attributes:
        computed_cells: cells that were computed.
        reused_cells: cells that the store had.
        tokens_computed: tokens through the model.
        tokens_naive: tokens of every request alone.
        route: how the last cell was scored (see `PrefixScorer.route`); None if none was computed.
        route_reason: why no faster way was taken; None for the fastest.
    """

    computed_cells: int = 0
    reused_cells: int = 0
    tokens_computed: int = 0
    tokens_naive: int = 0
    route: str | None = None
    route_reason: str | None = None

    def add(self, scorer: Scorer, cell: Cell) -> None:
        """Count one cell, scored by `scorer`."""
        self.tokens_naive += cell.tokens_alone
        if isinstance(scorer, SharingScorer):
            self.route, self.route_reason = scorer.route, scorer.reason
            self.tokens_computed += scorer.tokens_computed(cell.requests)
        else:
            self.route = "plain"
            self.tokens_computed += sum(request.length for request in cell.requests)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcome of `evaluate`: finished cells in order of tasks, then seeds, and what to know of their data."""

    cells: tuple[FinishedCell, ...]
    cost: EvaluationCost
    notes: tuple[str, ...] = ()


class EvaluationProgress(Protocol):
    """Told about every cell; draws the progress bar and feeds the tracker."""

    def start(self, total: int, stored: int) -> None:
        """Called once with the number of cells, and how many of them are stored already."""
        ...

    def tokens(self, cell: CellKey, done: int, total: int) -> None:
        """Called after each batch inside a cell."""
        ...

    def finished(self, cell: FinishedCell, *, computed: bool) -> None:
        """Called for each cell when its result is on disk."""
        ...


def evaluate(
    settings: EvaluateSettings,
    source: TaskSource,
    model: LazyLanguageModel,
    make_scorer: MakeScorer,
    progress: EvaluationProgress,
    expect: Callable[[Mapping[CellPlace, str]], None] | None = None,
) -> Evaluation:
    """Evaluate every cell that the store lacks, and write all of them to the run's folder.

    The processes of a launch share the missing cells, and the first one writes the folder. A cell is stored as soon
    as it is finished, so a run that is killed loses at most one cell. Data and output folders are checked before the
    model is loaded.

    Args:
        settings: what to evaluate.
        source: the tasks' data.
        model: loaded when the first cell has to be computed.
        make_scorer: the scoring engine for the loaded model.
        progress: told about every cell.
        expect: told the fingerprint of every cell, by task and seed, before the first one.

    Raises:
        DataError, ConfigError: bad data, or prompts that cannot fit.
        OutputError: the store or the run's folder cannot be written.
        ModelError: NaN logits.
    """
    rules = prompt_rules(settings, model)
    todo = {cell_key(data, rules, model): data for data in load_cells(settings, source)}
    keys, notes = list(todo), dict.fromkeys(note for data in todo.values() for note in data.notes)
    store = ResultStore(settings.results_root)
    stored = sum(store.get(key.fingerprint) is not None for key in keys)
    if stored < len(keys):
        store.check_writable()
    expected = {(key.task, key.seed): key.fingerprint for key in keys}
    if expect is not None:
        expect(expected)
    folder = RunFolder(settings.output, expected) if leads() else None
    if folder is not None:
        write_prompts(settings.output, (cell_prompt(data, rules) for data in todo.values()))
    progress.start(len(keys), stored)
    scorer_of_model = cache(lambda: scorer_of(make_scorer, model))
    work = _Work(todo, settings, rules, model, scorer_of_model, progress, store, EvaluationCost())
    for key in keys[rank() :: world_size()] if world_size() > 1 else ():
        work.finished(key)
    barrier()
    cells: list[FinishedCell] = []
    for key in keys:
        cell, computed = work.finished(key)
        cell = relabel(
            cell, setting=settings.setting, method=settings.method.name, model=model.name, seed=key.seed
        )
        if folder is not None:
            folder.add(cell)
        cells.append(cell)
        progress.finished(cell, computed=computed)
    if folder is not None:
        folder.check_complete()
    for one in with_cut_inputs(cell.result for cell in cells):
        note = cut_note(one.task, one.cut_inputs, one.n, one.cut_tokens, settings.prompt.limits)
        notes[note] = None
    return Evaluation(tuple(cells), _over_ranks(work.cost, len(keys)), tuple(notes))


@dataclass(frozen=True, slots=True)
class _Work:
    """What computing a cell takes."""

    data: Mapping[CellKey, TaskData]
    settings: EvaluateSettings
    rules: PromptRules
    model: LazyLanguageModel
    scorer_of_model: Callable[[], Scorer]
    progress: EvaluationProgress
    store: ResultStore
    cost: EvaluationCost

    def finished(self, key: CellKey) -> tuple[FinishedCell, bool]:
        """The cell from the store, or computed and put there; and whether it was computed."""
        cell = self.store.get(key.fingerprint)
        if cell is None:
            with self.store.lock(key.fingerprint):
                cell = self.store.get(key.fingerprint)
                if cell is None:
                    cell = self._compute(key)
                    self.store.put(cell)
                    self.cost.computed_cells += 1
                    return cell, True
        return cell, False

    def _compute(self, key: CellKey) -> FinishedCell:
        data, settings, model = self.data[key], self.settings, self.model
        method = settings.method

        def on_progress(done: int, total: int) -> None:
            self.progress.tokens(key, done, total)

        if isinstance(method, GenerateMethod):
            answers = generate_answers(data, model.load(), model.encode, self.rules, method, on_progress)
            return finish_generated(key, data, answers, settings, method, model.name)
        cell = build_cell(data, model.encode, self.rules)
        scorer = self.scorer_of_model()
        scores = scorer.score(cell.requests, on_progress=on_progress)
        self.cost.add(scorer, cell)
        return finish_cell(key, data, cell, read_back(cell, scores), settings, model.name)


def _over_ranks(cost: EvaluationCost, cells: int) -> EvaluationCost:
    """What all processes together computed."""
    own = [float(cost.computed_cells), float(cost.tokens_computed), float(cost.tokens_naive)]
    computed, tokens, naive = map(int, sum_over_ranks(own, "cpu"))
    return EvaluationCost(computed, cells - computed, tokens, naive, cost.route, cost.route_reason)
