"""The whole config as one dataclass: what every key of `conf/config.yaml` is, and what every group must make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from metashot.base.value_kinds import Count, GivenLine, Line, Seed
from metashot.data.preparation.prepare import PrepareConfig
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
    """A choice of `conf/setting`.

    Attributes:
        name: a setting of `data.settings`, or a YAML file of one's own.
    """

    name: GivenLine


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Every key of the composed config; comments on the keys stand in `conf/config.yaml`."""

    data: DataModule
    setting: SettingChoice | None
    method: AnyMethod
    model: ModelConfig
    optimizer: OptimizerConfig
    trainer: Trainer
    prepare: PrepareConfig
    corpus: CorpusConfig
    supmer: SupmerConfig
    tuning: TuningConfig
    scorer: MakeScorer
    logger: LoggerConfig
    stage: str | tuple[str, ...]
    k: Count
    seeds: tuple[Seed, ...]
    split: Literal["test", "dev"]
    truncation: Truncation
    checkpoint: Path | None
    results_root: Path
    condition: Line
    name: GivenLine | None
    tags: GivenLine | tuple[GivenLine, ...]
    selection: Selection
    prompt: PromptConfig
    runs: tuple[Path, ...]
    run: Path | None
    report: ReportConfig
    compare: CompareConfig
    plan: PlanConfig
    find_lr: LrRangeConfig
    export: ExportConfig
    probe: ProbeConfig

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in order."""
        return (self.stage,) if isinstance(self.stage, str) else self.stage
