"""The in-context stages of `run.py`: config nodes in, files and tables out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from metashot.base.errors import ConfigError, DataError
from metashot.data.tasks.harness_tasks import HarnessSource
from metashot.data.tasks.modules import DataModule, HarnessData
from metashot.data.tasks.selected_source import Labels, SelectedSource, Selection, Strategy
from metashot.data.tasks.source import TaskSource
from metashot.engine.cells.planning import Plan
from metashot.engine.metrics.rules import Calibration
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sentence_encoder import load_keeping_encoder
from metashot.engine.models.sources import ModelConfig
from metashot.engine.training.ranks import leads
from metashot.icl.learning.checkpoint_choice import checkpoint_folder
from metashot.icl.learning.export import export_checkpoint
from metashot.icl.learning.writing.sequence_labels import english_words
from metashot.icl.prompting.config import HarnessPrompt
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Objective
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.generation import GeneratedCells, GenerateMethod
from metashot.icl.scoring.hidden import HiddenCells
from metashot.icl.scoring.in_context import InContextCells
from metashot.icl.scoring.plan import plan_evaluation
from metashot.icl.scoring.ranking import RankedCells
from metashot.icl.scoring.task_vector import TaskVectorCells
from metashot.icl.scoring.trained_method import check_method, follow_checkpoint
from metashot.stages.context import RunContext
from metashot.stages.families import cells_of
from metashot.stages.icl_training import in_context, trained_folder, training_settings
from metashot.stages.preparation import show_data_checks
from metashot.stages.task_source import choose_tasks

_Parts = tuple[TaskSource, EvaluateSettings, LazyLanguageModel, HarnessSource | None]


def ranked_cells(run: RunContext) -> InContextCells:
    """The cells of a method that ranks options."""
    parts = _evaluation_parts(run)
    source, settings, model, _ = parts
    return _by_their_task(run, parts) or RankedCells(settings, source, model, run.config.scorer)


def hidden_cells(run: RunContext) -> HiddenCells:
    """The cells of a method that ranks options by states."""
    source, settings, model, _ = _evaluation_parts(run)
    return HiddenCells(settings, source, model, run.config.scorer)


def task_vector_cells(run: RunContext) -> TaskVectorCells:
    """The cells of a method that puts a task vector in the place of demonstrations."""
    source, settings, model, _ = _evaluation_parts(run)
    return TaskVectorCells(settings, source, model, run.config.scorer)


def generated_cells(run: RunContext) -> InContextCells:
    """The cells of a method that generates answers."""
    parts = _evaluation_parts(run)
    source, settings, model, _ = parts
    return _by_their_task(run, parts) or GeneratedCells(settings, source, model, run.config.scorer)


def _by_their_task(run: RunContext, parts: _Parts) -> InContextCells | None:
    """The cells of tasks of the harness that write their own prompts; None where the run's method or format does."""
    source, settings, model, harness = parts
    data, method = run.config.data, settings.method
    own = isinstance(settings.prompt, HarnessPrompt) and method.objective is Objective.DIRECT
    if harness is None or not own or method.calibration is not Calibration.NONE:
        return None
    if settings.split != "test" or (isinstance(data, HarnessData) and data.normalization is None):
        return None
    if isinstance(method, GenerateMethod) and (keys := method.own_keys):
        raise ConfigError(
            f"method.{keys[0]}",
            "is the task's own affair where it writes its prompts: it says when an answer ends, what of it counts, and how",
            "leave it out, or answer in a format of ours: prompt=template",
        )
    from metashot.icl.scoring.harness import HarnessCells

    return HarnessCells(settings, source, model, run.config.scorer, harness)


def planned(run: RunContext) -> Plan:
    """What `evaluate` would run and cost; checks of the data and the price of a training are printed before."""
    family = cells_of(run)
    assert isinstance(family, InContextCells)
    show_data_checks(run)
    if family.settings.method.trained and run.config.checkpoint is None:
        _show_training(run, family.model)
    return plan_evaluation(family, run.config.plan, run.console)


def _show_training(run: RunContext, model: LazyLanguageModel) -> None:
    from metashot.engine.training.optimizers import state_bytes_per_weight
    from metashot.icl.learning.training_plan import plan_training, slices_line, training_line

    settings, tasks = training_settings(run.config), choose_tasks(run.config)
    try:
        plan = plan_training(settings, model, tasks.source, tasks.training)
    except DataError as error:
        run.console.print(f"training cannot be priced: {error}", soft_wrap=True)
        return
    config, state_bytes = model.spec.read_config(), state_bytes_per_weight(settings.optimizer)
    run.console.print(training_line(plan, config, state_bytes), soft_wrap=True)
    if settings.episodes.micro_batch_size == "auto":
        run.console.print(slices_line(plan, settings, model, config, state_bytes), soft_wrap=True)


def _evaluation_parts(run: RunContext) -> _Parts:
    config = run.config
    tasks = choose_tasks(config)
    if config.demonstrations == "harness" and config.selection.strategy is not Strategy.PROTOCOL:
        raise ConfigError(
            "selection.strategy",
            f"{config.selection.strategy.value!r} chooses demonstrations, and so does demonstrations=harness",
            "leave one of them out",
        )
    source = select(tasks.source, config.selection)
    settings = EvaluateSettings(
        setting=tasks.setting,
        tasks=tasks.targets,
        seeds=config.seeds,
        k=config.k,
        split=config.split,
        method=_ranked_as(config.data, in_context(config.method)),
        truncation=config.truncation,
        prompt=config.prompt,
    )
    spec, settings = _agreed(run, settings)
    return source, settings, LazyLanguageModel(spec), tasks.harness


def _ranked_as(data: DataModule, method: Method) -> Method:
    """The method, normalizing as the source of the tasks does where it says so."""
    rule = data.normalization if isinstance(data, HarnessData) else None
    return method if rule is None else replace(method, normalization=rule)


def _agreed(run: RunContext, settings: EvaluateSettings) -> tuple[ModelConfig, EvaluateSettings]:
    """The config's model, with the weights of `checkpoint` or of this run's training in its place.

    Where begin-of-sequence is left open, the settings follow the checkpoint.

    Raises:
        ConfigError: the method contradicts what the checkpoint was trained for.
    """
    spec, folder = run.config.model, _checkpoint(run)
    if folder is not None:
        spec = spec.with_weights(folder)
        if run.config.checkpoint is not None:
            run.tracker.uses(folder)
    if spec.checkpoint is not None:
        settings = replace(settings, prompt=follow_checkpoint(spec.checkpoint, settings.prompt))
        check_method(spec.checkpoint, settings.method, settings.k, settings.prompt)
    elif settings.method.trained and run.config.stages != ("plan",):
        run.console.print(
            f"note: method {settings.method.name} is for a meta-trained model; {spec.name} is scored as it is "
            "(give checkpoint=<run or checkpoint folder>, or run 'stage=[train,evaluate]')",
            soft_wrap=True,
            markup=False,
        )
    return spec, settings


def _checkpoint(run: RunContext) -> Path | None:
    given = run.config.checkpoint
    if given is None:
        return trained_folder(run.output) if "train" in run.config.stages else None
    return checkpoint_folder(
        str(given), run.config.model, in_context(run.config.method), run.config.results_root
    )


def export_stage(run: RunContext) -> None:
    """Write `checkpoint`, or what this run trained, into `<output folder>/export` for others to load."""
    folder = _checkpoint(run)
    if folder is None:
        raise ConfigError(
            "checkpoint", "is not set, so nothing is to be exported", "give checkpoint=<run or folder>"
        )
    if leads():
        made = export_checkpoint(folder, run.config.model, run.config.export, run.output / "export")
        run.console.print(f"exported to {made}", soft_wrap=True)


def select(source: TaskSource, selection: Selection) -> TaskSource:
    """`source` with the demonstrations of the lab; itself when the selection changes nothing."""
    if selection.changes_nothing:
        return source
    embed = load_keeping_encoder(selection.encoder) if selection.needs_encoder else None
    words = english_words() if selection.labels is Labels.RANDOM_WORDS else ()
    return SelectedSource(source, selection, embed, words)
