"""Evaluate a method on tasks: one cell per (task, seed), each computed once and stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from metashot.data.apart import content_digest
from metashot.data.errors import DataError
from metashot.data.source import TaskSource
from metashot.data.task import TaskData, TaskType
from metashot.engine.errors import ConfigError
from metashot.engine.files import digest_of
from metashot.engine.metrics.classification import Metric, metric_of, score
from metashot.engine.metrics.ranking import best_option
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.runs.folder import CellPlace, RunFolder
from metashot.engine.runs.prompts import CellPrompt, write_prompts
from metashot.engine.runs.results import FinishedCell, Prediction, Result, relabel
from metashot.engine.runs.store import ResultStore
from metashot.engine.scoring.request import MakeScorer, Request, Scorer, SharingScorer
from metashot.engine.training.ranks import barrier, leads, rank, sum_over_ranks, world_size
from metashot.icl.cell import (
    Cell,
    OptionScores,
    PromptRules,
    Truncation,
    build_cell,
    cut_note,
    ranking_scores,
    read_back,
)
from metashot.icl.generation import Answers, GenerateMethod, generate_answers, grades
from metashot.icl.methods import Method
from metashot.icl.prompt_record import cell_prompt
from metashot.icl.prompting.config import PromptConfig

if TYPE_CHECKING:
    pass

SCORING_VERSION = 2
"""Part of every fingerprint: raise it when a change of this code changes scores."""


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """What to evaluate.

    Attributes:
        setting: name that results carry.
        tasks: task names.
        seeds: demonstration seeds.
        k: demonstrations asked for; zero-shot methods use none.
        split: `test` or `dev`.
        method: how options are scored.
        truncation: how demonstrations are cut.
        prompt: how examples become a prompt.
        results_root: store of finished cells.
        output: the run's folder.
    """

    setting: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    k: int
    split: str
    method: Method
    truncation: Truncation
    prompt: PromptConfig
    results_root: Path
    output: Path

    def __post_init__(self) -> None:
        """Refuse empty lists and repeated entries.

        Raises:
            ConfigError: no task or no seed, one of them twice, or a negative k.
        """
        if self.k < 0:
            raise ConfigError("k", f"must be 0 or more, got {self.k}", "0 is zero-shot")
        for key, values in (("data.tasks", self.tasks), ("seeds", self.seeds)):
            if not values:
                raise ConfigError(key, "is empty", "name at least one")
            if len(set(values)) < len(values):
                repeated = next(value for value in values if values.count(value) > 1)
                raise ConfigError(key, f"{repeated!r} stands twice", "keep one of them")


@dataclass(frozen=True, slots=True)
class CellKey:
    """One (task, seed) with the fingerprint of all that decides its value."""

    task: str
    seed: int
    fingerprint: str
    n: int


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

    def add(self, scorer: Scorer, requests: Sequence[Request], alone: int) -> None:
        """Count one cell's requests, scored by `scorer`; `alone` tokens without sharing."""
        self.tokens_naive += alone
        if isinstance(scorer, SharingScorer):
            self.route, self.route_reason = scorer.route, scorer.reason
            self.tokens_computed += scorer.tokens_computed(requests)
        else:
            self.route = "plain"
            self.tokens_computed += sum(request.length for request in requests)


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


def prompt_rules(settings: EvaluateSettings, model: LazyLanguageModel) -> PromptRules:
    """The rules that turn this run's examples into ids."""
    return PromptRules(
        settings.method,
        settings.prompt.bind(settings.method, model.name, model.tokenizer),
        settings.truncation,
        settings.prompt.limits,
        model.context_length,
    )


def load_cells(settings: EvaluateSettings, source: TaskSource) -> Iterator[TaskData]:
    """Read and check every cell's data, one at a time.

    Raises:
        DataError: whatever is wrong with the data, or test sets that differ in size between seeds.
        ConfigError: a free-form task, which has no options to rank.
    """
    shots = settings.method.shots(settings.k)
    for task in settings.tasks:
        sizes: dict[int, int] = {}
        digests: dict[str, int] = {}
        for seed in settings.seeds:
            data = source.load(task, k=shots, seed=seed, split=settings.split)
            if data.task_type is TaskType.FREE_FORM and settings.method.ranks_options:
                raise ConfigError(
                    "data.tasks",
                    f"{task!r} is free-form: it has no options to rank",
                    "use method=generate, or remove it",
                )
            sizes[seed] = len(data.test)
            if len(set(sizes.values())) > 1:
                raise DataError(
                    task,
                    f"test sets differ in size between seeds: {sizes}",
                    "use the same test file for every seed",
                )
            first = digests.setdefault(content_digest(data), data.seed)
            if len(digests) > 1 and first == data.seed:
                data = replace(data, notes=(*data.notes, _other_rows(task)))
            yield data


def _other_rows(task: str) -> str:
    return (
        f"task {task!r}: the test files of its seeds hold different rows, which intervals take for different "
        "examples; give every seed the same file for one test set"
    )


def cell_key(data: TaskData, settings: EvaluateSettings, model: LazyLanguageModel) -> CellKey:
    """Fingerprint of a cell: data, prompt rules, method and model identity, and nothing that has no effect."""
    rules = prompt_rules(settings, model)
    fingerprint = digest_of(
        {
            "version": SCORING_VERSION,
            "model": model.identity,
            "method": settings.method.scoring_identity,
            **rules.prompt.for_task(data.wording).identity(),
            "truncation": rules.truncation if data.shots else None,
            "limits": asdict(rules.limits),
            "context_length": rules.context_length,
            "task_type": data.task_type,
            "demonstrations": [asdict(example) for example in data.demonstrations],
            **(
                {"neighbours": [[asdict(e) for e in row] for row in data.neighbours]}
                if data.neighbours
                else {}
            ),
            "test": [asdict(example) for example in data.test],
        }
    )
    return CellKey(data.task, data.seed, fingerprint, len(data.test))


def evaluate(
    settings: EvaluateSettings,
    source: TaskSource,
    model: LazyLanguageModel,
    make_scorer: MakeScorer,
    progress: EvaluationProgress,
    expect: Callable[[Mapping[CellPlace, str]], None] | None = None,
) -> Evaluation:
    """Evaluate every cell that the store lacks, and write all of them to the run's folder.

    The processes of a launch share the missing cells, and the first one writes the folder. A cell is stored as soon as it is finished, so a run that is killed loses at most one cell. Data and output
    folders are checked before the model is loaded.

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
    keys: list[CellKey] = []
    shown: list[CellPrompt] = []
    notes: dict[str, None] = {}
    for data in load_cells(settings, source):
        notes.update(dict.fromkeys(data.notes))
        keys.append(cell_key(data, settings, model))
        shown.append(cell_prompt(data, prompt_rules(settings, model)))
    store = ResultStore(settings.results_root)
    stored = sum(store.get(key.fingerprint) is not None for key in keys)
    if stored < len(keys):
        store.check_writable()
    expected = {(key.task, key.seed): key.fingerprint for key in keys}
    if expect is not None:
        expect(expected)
    folder = RunFolder(settings.output, expected) if leads() else None
    if folder is not None:
        write_prompts(settings.output, shown)
    progress.start(len(keys), stored)
    scorer_of_model = cache(lambda: make_scorer(model.load().model))
    work = _Work(settings, source, model, scorer_of_model, progress, store, EvaluationCost())
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
    notes.update(dict.fromkeys(_cut_notes(cells, settings)))
    return Evaluation(tuple(cells), _over_ranks(work.cost, len(keys)), tuple(notes))


def _cut_notes(cells: Sequence[FinishedCell], settings: EvaluateSettings) -> Iterator[str]:
    """One sentence for each task of which test inputs were cut, by its first seed that has some."""
    told: set[str] = set()
    for result in (cell.result for cell in cells):
        if result.cut_inputs and result.task not in told:
            told.add(result.task)
            yield cut_note(
                result.task, result.cut_inputs, result.n, result.cut_tokens, settings.prompt.limits
            )


@dataclass(frozen=True, slots=True)
class _Work:
    """What computing a cell takes."""

    settings: EvaluateSettings
    source: TaskSource
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
                    parts = (
                        self.settings,
                        self.source,
                        self.model,
                        self.scorer_of_model,
                        self.progress,
                        self.cost,
                    )
                    cell = _compute(key, *parts)
                    self.store.put(cell)
                    self.cost.computed_cells += 1
                    return cell, True
        return cell, False


def _over_ranks(cost: EvaluationCost, cells: int) -> EvaluationCost:
    """What all processes together computed."""
    own = [float(cost.computed_cells), float(cost.tokens_computed), float(cost.tokens_naive)]
    computed, tokens, naive = map(int, sum_over_ranks(own, "cpu"))
    return EvaluationCost(computed, cells - computed, tokens, naive, cost.route, cost.route_reason)


def _compute(
    key: CellKey,
    settings: EvaluateSettings,
    source: TaskSource,
    model: LazyLanguageModel,
    scorer_of_model: Callable[[], Scorer],
    progress: EvaluationProgress,
    cost: EvaluationCost,
) -> FinishedCell:
    data = source.load(key.task, k=settings.method.shots(settings.k), seed=key.seed, split=settings.split)
    rules = prompt_rules(settings, model)
    if isinstance(settings.method, GenerateMethod):
        answers = generate_answers(
            data, model.load(), model.encode, rules, settings.method,
            lambda done, total: progress.tokens(key, done, total),
        )  # fmt: skip
        return finish_generated(key, data, answers, settings, settings.method, model.name)
    cell = build_cell(data, model.encode, rules)
    scorer = scorer_of_model()
    scores = scorer.score(cell.requests, on_progress=lambda done, total: progress.tokens(key, done, total))
    cost.add(scorer, cell.requests, tokens_alone(cell))
    return finish_cell(key, data, cell, read_back(cell, scores), settings, model.name)


def finish_generated(
    key: CellKey,
    data: TaskData,
    answers: Answers,
    settings: EvaluateSettings,
    method: GenerateMethod,
    model_name: str,
) -> FinishedCell:
    """Grade the answers and measure the cell."""
    metric = Metric(method.metric)
    scores = grades(data.test, answers.texts, metric)
    predictions = tuple(
        Prediction(
            task=key.task, seed=key.seed, index=index, gold=example.output, prediction=answer, options=(), nll=(),
            sum_nll=(), n_tokens=(), n_chars=(), n_bytes=(), null_sum_nll=(), null_n_tokens=(),
            fingerprint=key.fingerprint, score=one,
        )
        for index, (example, answer, one) in enumerate(zip(data.test, answers.texts, scores, strict=True))
    )  # fmt: skip
    return FinishedCell(
        _result(key, data, settings, model_name, metric, sum(scores) / len(scores), answers.lost), predictions
    )


def _result(
    key: CellKey,
    data: TaskData,
    settings: EvaluateSettings,
    model_name: str,
    metric: Metric,
    value: float,
    lost: Sequence[int],
) -> Result:
    """The cell's line in `results.jsonl`; `lost` are the tokens that each test input was cut by."""
    return Result(
        setting=settings.setting,
        method=settings.method.name,
        model=model_name,
        task=key.task,
        seed=key.seed,
        k=data.shots,
        metric=metric.value,
        value=value,
        n=len(data.test),
        fingerprint=key.fingerprint,
        test_digest=content_digest(data),
        cut_inputs=sum(tokens > 0 for tokens in lost),
        cut_tokens=sum(lost),
    )


def finish_cell(
    key: CellKey,
    data: TaskData,
    cell: Cell,
    answers: Sequence[OptionScores],
    settings: EvaluateSettings,
    model_name: str,
) -> FinishedCell:
    """Rank the options and measure the cell."""
    predictions = tuple(
        predict(example.output, example.options, answer, nll, key, index)
        for index, (example, answer, nll) in enumerate(
            zip(data.test, answers, ranking_scores(answers, settings.method), strict=True)
        )
    )
    metric = metric_of(data.task_type)
    value = score(metric, [row.gold for row in predictions], [row.prediction for row in predictions])
    return FinishedCell(_result(key, data, settings, model_name, metric, value, cell.lost), predictions)


def predict(
    gold: str,
    options: tuple[str, ...],
    answer: OptionScores,
    nll: Sequence[float],
    key: CellKey,
    index: int,
) -> Prediction:
    """One test example's line of `predictions.jsonl`."""
    counts = answer.counts[0]
    return Prediction(
        task=key.task,
        seed=key.seed,
        index=index,
        gold=gold,
        prediction=options[best_option(nll)],
        options=options,
        nll=tuple(nll),
        sum_nll=answer.sum_nll[0],
        n_tokens=tuple(count.tokens for count in counts),
        n_chars=tuple(count.chars for count in counts),
        n_bytes=tuple(count.bytes for count in counts),
        null_sum_nll=answer.sum_nll[1:],
        null_n_tokens=tuple(tuple(count.tokens for count in row) for row in answer.counts[1:]),
        fingerprint=key.fingerprint,
    )


def tokens_alone(cell: Cell) -> int:
    """Tokens of scoring every (test example, option, null input) by itself."""
    return sum(cell.requests[place].length for layer in cell.index for row in layer for place in row)
