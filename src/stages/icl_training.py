"""`stage=train` of the in-context methods: config nodes in, a checkpoint folder out."""

from __future__ import annotations

from pathlib import Path

from metashot.base.errors import ConfigError
from metashot.base.files import write_json
from metashot.data.rows.episodes import check_disjoint
from metashot.engine.models.loading import load_model
from metashot.engine.training.checkpoint import best_checkpoint, checkpoint_folders
from metashot.engine.training.ranks import leads
from metashot.icl.learning.training_settings import MetaTrainSettings
from metashot.icl.prompting.methods import Method
from metashot.stages.context import RunContext
from metashot.stages.run_config import AnyMethod, RunConfig
from metashot.stages.task_source import TaskChoice, choose_tasks
from metashot.stages.training import Trained

LR_RANGE_FILE = "lr_range.json"


def trained(run: RunContext) -> Trained:
    """Meta-train for learning in context; the figure is the last held-out metric in percent (0 without any).

    Raises:
        ConfigError, DataError, ModelError, CheckpointError: before anything is written, see `icl.meta_training.train`.
    """
    config = run.config
    settings = training_settings(config)
    tasks = choose_tasks(config)
    _check_tasks(tasks)
    _check_folder(run)
    model = load_model(config.model)
    outcome = config.trainer.train(
        settings, model, tasks.source, tasks.training, tasks.targets, run.output, run.tracker
    )
    return Trained(
        outcome, 100.0 * outcome.metrics.get("metric", 0.0), "checkpoint", trained_folder(run.output)
    )


def find_lr_stage(run: RunContext) -> float:
    """The learning-rate range test; returns the suggested rate, and keeps the curve in `lr_range.json`."""
    from metashot.icl.learning.meta_training import find_learning_rate

    config = run.config
    settings, tasks = training_settings(config), choose_tasks(config)
    _check_tasks(tasks)
    found = find_learning_rate(
        settings, load_model(config.model), tasks.source, tasks.training, config.find_lr
    )
    if leads():
        write_json(
            run.output / LR_RANGE_FILE,
            {
                "suggestion": found.suggestion,
                "ended": found.ended,
                "rates": found.rates,
                "losses": found.losses,
            },
        )
    for step, (rate, loss) in enumerate(zip(found.rates, found.losses, strict=True), 1):
        run.tracker.log({"find_lr/learning_rate": rate, "find_lr/loss": loss}, step)
        if step % 5 == 1 or step == len(found.rates):
            run.console.print(f"{rate:9.2e}  {loss:8.4f}", soft_wrap=True)
    run.console.print(
        f"{len(found.rates)} steps, {found.ended}; the smoothed loss is least at {10 * found.suggestion:.2g}; "
        f"try optimizer.learning_rate={found.suggestion:.1e}",
        soft_wrap=True,
    )
    if found.falls_at_the_end:
        run.console.print(
            f"the loss still falls at the highest rate, {found.rates[-1]:.1e}: raise find_lr.highest to see where it ends",
            soft_wrap=True,
        )
    return found.suggestion


def training_settings(config: RunConfig) -> MetaTrainSettings:
    """What the trainer makes of `method`, `prompt`, `k` and `optimizer`."""
    return config.trainer.settings(in_context(config.method), config.prompt, config.k, config.optimizer)


def in_context(method: AnyMethod) -> Method:
    """The method of a stage that scores options in context.

    Raises:
        ConfigError: it is no such method.
    """
    if not isinstance(method, Method):
        raise ConfigError("method", f"{method.name!r} does not score options in context", "use method=direct")
    return method


def _check_tasks(tasks: TaskChoice) -> None:
    if not tasks.training:
        raise ConfigError(
            "setting",
            "is not set, so no task is for training",
            "choose setting=..., data.train_tasks or data=synthetic",
        )
    check_disjoint(tasks.training, tasks.targets, tasks.overlap)


def _check_folder(run: RunContext) -> None:
    """Refuse to begin a second history where a finished training has lost its checkpoints."""
    if run.record.trained_steps and not checkpoint_folders(run.output / "checkpoints"):
        raise ConfigError(
            "hydra.run.dir",
            f"{str(run.output)!r} holds a finished training of {run.record.trained_steps} steps, and its checkpoints are gone",
            "train into another folder, or remove this one",
        )


def trained_folder(output: Path) -> Path:
    """The checkpoint of a finished training that evaluation should use: the best one, else the newest.

    Raises:
        ConfigError: there is none.
    """
    folder = best_checkpoint(output / "checkpoints")
    if folder is None:
        raise ConfigError("stage", f"no whole checkpoint below {str(output)!r}", "run stage=train first")
    return folder
