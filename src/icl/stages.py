"""The in-context stages of `run.py`: config nodes in, files and tables out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from data.demo import DemoSource
from data.selected_source import Labels, SelectedSource, Selection, Strategy
from data.settings import load_setting
from data.source import JsonlSource, TaskSource
from data.synthetic import SyntheticSource
from data.task import TaskType
from engine.config import build, convert
from engine.errors import ConfigError
from engine.files import write_atomic, write_json
from engine.models import LanguageModel, LazyLanguageModel, ModelSpec
from engine.results import FinishedCell
from engine.run_context import RunContext
from engine.scoring import PlainScorer, PrefixScorer, Scorer
from engine.sentence_encoder import load_sentence_encoder
from engine.summary import SUMMARY_FILE, Summary, console_table, markdown_table, summarize
from icl.cell import Truncation
from icl.evaluation import EvaluateSettings, EvaluationCost, evaluate
from icl.methods import Method
from icl.plan import PlanSettings, plan_evaluation
from icl.progress import CellProgress
from icl.prompt import LengthLimits
from icl.sequences import english_words
from icl.trained import check_method, checkpoint_folder, trained_folder


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """Token limits (`prompt.*`).

    Attributes:
        max_length: most tokens of a sequence with demonstrations.
        max_length_per_example: most tokens of one example, two of them reserved.
    """

    max_length: int
    max_length_per_example: int


@dataclass(frozen=True, slots=True)
class ScorerSettings:
    """Which scoring engine (`scorer.*`).

    Attributes:
        kind: `prefix` shares every common prefix; `plain` runs every request alone.
        memory_mb: working memory of the prefix engine above the model; null lets it choose.
        batch_size: sequences per batch of the plain engine.
    """

    kind: Literal["prefix", "plain"]
    memory_mb: int | None
    batch_size: int


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where tasks come from (`data.*`).

    Attributes:
        name: `demo` or `jsonl`.
        root: the folder of `jsonl`.
        tasks: which tasks; null means the targets of the setting, or all tasks without a setting.
        task_types: declared types of tasks that no recipe knows.
        fixes: corrected labels instead of the published ones, where recipes have corrections.
    """

    name: str
    root: str | None
    tasks: list[str] | None
    task_types: dict[str, str]
    fixes: bool


def evaluate_stage(run: RunContext) -> float:
    """Evaluate, write every file of the output folder, print the table; returns the mean in percent."""
    config = run.config
    source, settings, model = _evaluation_parts(run)
    scorer = build(ScorerSettings, config["scorer"], "scorer")
    with CellProgress(run.console, run.tracker) as progress:
        outcome = evaluate(settings, source, model, lambda loaded: make_scorer(loaded, scorer), progress)
    summary = summarize(outcome.cells)
    write_json(run.output / SUMMARY_FILE, summary.to_json())
    write_atomic(run.output / "summary.md", markdown_table(summary))
    run.console.print(console_table(summary))
    run.console.print(cost_line(outcome.cost), soft_wrap=True)
    run.record.write("running", cost=asdict(outcome.cost))
    _track(run, outcome.cells, summary)
    return summary.mean.value


def plan_stage(run: RunContext) -> None:
    """Print what `evaluate` would run and cost."""
    source, settings, model = _evaluation_parts(run)
    plan_evaluation(settings, source, model, build(PlanSettings, run.config["plan"], "plan"), run.console)


def _evaluation_parts(run: RunContext) -> tuple[TaskSource, EvaluateSettings, LazyLanguageModel]:
    config = run.config
    data, source = open_data(config["data"])
    setting, tasks = choose_tasks(config["setting"], data, source)
    source = select(source, build(Selection, config["selection"], "selection"))
    limits = build(PromptSettings, config["prompt"], "prompt")
    settings = EvaluateSettings(
        setting=setting,
        tasks=tuple(tasks),
        seeds=convert(tuple[int, ...], config["seeds"], "seeds"),
        k=convert(int, config["k"], "k"),
        split=convert(Literal["test", "dev"], config["split"], "split"),
        method=build(Method, config["method"], "method"),
        truncation=convert(Truncation, config["truncation"], "truncation"),
        limits=LengthLimits(limits.max_length_per_example, limits.max_length),
        results_root=run.results_root,
        output=run.output,
    )
    return source, settings, LazyLanguageModel(evaluated_model(run, settings))


def evaluated_model(run: RunContext, settings: EvaluateSettings) -> ModelSpec:
    """The model of the config; for a method that needs training, its checkpoint if this config has trained one.

    Raises:
        ConfigError: the model is a checkpoint that was trained for another method.
    """
    spec = build(ModelSpec, run.config["model"], "model")
    if settings.method.trained and spec.source != "local":
        folder = trained_folder(checkpoint_folder(run))
        spec = spec if folder is None else replace(spec, source="local", path=str(folder))
    if spec.source == "local" and spec.path is not None:
        check_method(spec.path, settings.method, settings.k)
    return spec


def open_data(node: Mapping[str, Any]) -> tuple[DataSettings, TaskSource]:
    """The settings and the source of a data group."""
    if node["name"] != "synthetic":
        data = build(DataSettings, node, "data")
        return data, open_source(data)
    source = build(SyntheticSource, {key: node[key] for key in node if key != "tasks"}, "data")
    tasks = convert(list[str] | None, node["tasks"], "data.tasks")
    return DataSettings("synthetic", None, tasks or source.testing_tasks(), {}, fixes=False), source


def open_source(data: DataSettings) -> TaskSource:
    """The source that a data group names.

    Raises:
        ConfigError: unknown name, or `jsonl` without a root.
    """
    openers: dict[str, Callable[[], TaskSource]] = {"demo": DemoSource, "jsonl": lambda: _jsonl(data)}
    if data.name not in openers:
        raise ConfigError("data.name", f"unknown value {data.name!r}", f"one of {', '.join(openers)}")
    return openers[data.name]()


def select(source: TaskSource, selection: Selection) -> TaskSource:
    """`source` with the demonstrations of the lab; itself when the selection changes nothing."""
    if selection.changes_nothing:
        return source
    nearest = selection.strategy is Strategy.NEAREST
    embed = load_sentence_encoder(selection.encoder) if nearest else None
    words = english_words() if selection.labels is Labels.RANDOM_WORDS else ()
    return SelectedSource(source, selection, embed, words)


def _jsonl(data: DataSettings) -> JsonlSource:
    if data.root is None:
        raise ConfigError("data.root", "is not set", "give the folder that holds one folder a task")
    return JsonlSource(data.root, data.task_types)


def choose_tasks(
    setting: Mapping[str, Any] | None, data: DataSettings, source: TaskSource
) -> tuple[str, Sequence[str]]:
    """The setting's name for results, and the tasks to evaluate."""
    if setting is not None:
        loaded = load_setting(str(setting["name"]))
        return loaded.name, data.tasks if data.tasks is not None else loaded.test
    tasks = (
        data.tasks if data.tasks is not None else [task for task in source.tasks() if _ranked(source, task)]
    )
    return data.name, tasks


def _ranked(source: TaskSource, task: str) -> bool:
    return not isinstance(source, DemoSource) or source.task_type(task) is not TaskType.FREE_FORM


def make_scorer(model: LanguageModel, settings: ScorerSettings) -> Scorer:
    """The scoring engine that the config names."""
    if settings.kind == "plain":
        return PlainScorer(model.model, settings.batch_size)
    budget = None if settings.memory_mb is None else settings.memory_mb << 20
    return PrefixScorer(model.model, budget, plain_batch_size=settings.batch_size)


def cost_line(cost: EvaluationCost) -> str:
    """One line on what was computed and what sharing saved."""
    if not cost.computed_cells:
        return f"nothing to compute: all {cost.reused_cells} cells were stored already"
    ratio = cost.tokens_naive / max(cost.tokens_computed, 1)
    return (
        f"{cost.computed_cells} cells computed, {cost.reused_cells} reused; {cost.tokens_computed:,} tokens computed, "
        f"{ratio:.1f} times fewer than without prefix sharing"
    )


def _track(run: RunContext, cells: Sequence[FinishedCell], summary: Summary) -> None:
    results = [asdict(cell.result) for cell in cells]
    run.tracker.table("results", list(results[0]), [list(row.values()) for row in results])
    if run.config["logger"]["predictions"]:
        columns = ("task", "seed", "index", "gold", "prediction", "options", "nll")
        rows = [[getattr(p, name) for name in columns] for cell in cells for p in cell.predictions]
        run.tracker.table("predictions", columns, [[*row[:5], list(row[5]), list(row[6])] for row in rows])
    per_task = {f"{task.task}/{task.metric}": task.mean.value for task in summary.tasks}
    run.tracker.summary({**per_task, "mean": summary.mean.value, "worst": summary.worst.value})
