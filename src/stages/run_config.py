"""The whole config as one dataclass: what every key of `conf/config.yaml` is, and what every group must make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from metashot.base.value_kinds import Count, GivenLine, Line, Seed
from metashot.data.preparation.prepare import PrepareConfig
from metashot.data.tasks.harness_tasks import From
from metashot.data.tasks.modules import DataModule
from metashot.data.tasks.selected_source import Selection
from metashot.data.tasks.source import TaskSource
from metashot.engine.models.sources import ModelConfig
from metashot.engine.report.config import CompareConfig, ReportConfig
from metashot.engine.scoring.request import MakeScorer
from metashot.engine.training.config import LrRangeConfig, OptimizerConfig
from metashot.engine.training.learner import MetricSink
from metashot.icl.learning.export import ExportConfig
from metashot.icl.learning.training_settings import MetaTrainSettings
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.prompting.methods import Method
from metashot.icl.scoring.cell import Truncation
from metashot.icl.scoring.plan import PlanConfig
from metashot.metaprompt.clusters.store import CorpusConfig
from metashot.metaprompt.meta.config import ProbeConfig, SupmerConfig
from metashot.metaprompt.tuning.config import TuningConfig
from metashot.stages.logger_config import LoggerConfig

if TYPE_CHECKING:
    from metashot.engine.models.loading import LanguageModel
    from metashot.engine.training.loop import TrainingOutcome


class AnyMethod(Protocol):
    """A choice of `conf/method`: an in-context `Method`, or a `PromptMethod`."""

    @property
    def name(self) -> str:
        """The name that results carry."""
        ...


class Trainer(Protocol):
    """A choice of `conf/trainer`."""

    def settings(
        self, method: Method, prompt: PromptConfig, k: int, optimizer: OptimizerConfig
    ) -> MetaTrainSettings:
        """What a training needs besides model and data."""
        ...

    def train(
        self,
        settings: MetaTrainSettings,
        model: LanguageModel,
        source: TaskSource,
        train_tasks: Sequence[str],
        target_tasks: Sequence[str],
        output: Path,
        sink: MetricSink | None = None,
    ) -> TrainingOutcome:
        """Train `model` in place; checkpoints go below `output`."""
        ...


@dataclass(frozen=True, slots=True)
class SettingChoice:
    """A choice of `conf/setting`."""

    name: GivenLine
    """A setting of `data.settings`, or a YAML file of one's own."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Every key of the composed config, and what each is."""

    data: DataModule
    """Where tasks come from."""
    setting: SettingChoice | None
    """Which tasks train and which are targets: a published setting, a YAML file of one's own, or null for
    what `data` says."""
    method: AnyMethod
    """What is evaluated, or trained for."""
    model: ModelConfig
    """The language model."""
    optimizer: OptimizerConfig
    """The optimizer of meta-training."""
    trainer: Trainer
    """Meta-training of in-context methods (`stage=train`)."""
    prepare: PrepareConfig
    """`stage=prepare`: which files to make, and from where."""
    corpus: CorpusConfig
    """Text of SUPMER's meta-tasks."""
    supmer: SupmerConfig
    """Meta-training of prompts (`stage=train method=supmer`)."""
    tuning: TuningConfig
    """Prompt tuning on k examples a label."""
    scorer: MakeScorer
    """What computes log-probabilities."""
    logger: LoggerConfig
    """Dashboards and logs besides the run's own files."""
    stage: str | tuple[str, ...]
    """One stage, or a list that is run in order: `'stage=[train,evaluate]'`."""
    k: Count
    """Demonstrations in the prompt, or examples a label that a prompt is tuned on; zero-shot methods use
    none."""
    demonstrations: From
    """Who chooses them: `drawn` by the seeds and `selection`, or `harness`, each task's own sampler with its own seed
    (`data=lm_eval`), so that figures are the harness's."""
    same_demonstrations: bool
    """`demonstrations=harness`: its sampler chooses once, for all documents of a task, which then share them."""
    seeds: tuple[Seed, ...]
    """Demonstration seeds; the default are the five published ones."""
    split: Literal["test", "dev"]
    """Which examples are evaluated."""
    truncation: Truncation
    """Whether the options of an example share the cut of its demonstrations; `per_option` is the released
    code's."""
    checkpoint: Path | None
    """Evaluate these weights: the folder of a training run, a checkpoint, a model or PEFT folder, a
    `model.pt`, or a published name such as `channel-metaicl` or `metaicl/qa_to_qa`."""
    results_root: Path
    """Folder of the finished cells and checkpoints of all runs."""
    condition: Line
    """What an experiment changes, for reports: `test_labels=replaced`."""
    name: GivenLine | None
    """Name of the run in dashboards; null makes one from method, model and task setting."""
    tags: GivenLine | tuple[GivenLine, ...]
    """Tags of the run in dashboards."""
    selection: Selection
    """The demonstration lab: other demonstrations than the published draw."""
    prompt: PromptConfig
    """How examples become text."""
    runs: tuple[Path, ...]
    """`stage=report` and `compare`: output folders of runs; `report` takes `results_root` when empty."""
    run: Path | None
    """`stage=rerun`: the output folder of the run to replay."""
    report: ReportConfig
    """`stage=report`."""
    compare: CompareConfig
    """`stage=compare`: two runs."""
    plan: PlanConfig
    """`stage=plan`."""
    find_lr: LrRangeConfig
    """`stage=find_lr`: a short training whose learning rate grows; it suggests `optimizer.learning_rate`."""
    export: ExportConfig
    """`stage=export`."""
    probe: ProbeConfig
    """`stage=probe`: does the frozen model hold what SUPMER's meta-tasks ask?"""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in order."""
        return (self.stage,) if isinstance(self.stage, str) else self.stage
