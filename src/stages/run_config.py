"""The whole config as one dataclass: what every key of `conf/config.yaml` is, and what every group must make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from transformers import PreTrainedModel

from metashot.data.modules import DataModule
from metashot.data.preparation.prepare import PrepareConfig
from metashot.data.selected_source import Selection
from metashot.data.source import TaskSource
from metashot.data.value_kinds import Count, GivenLine, Line, Seed
from metashot.engine.models.loading import LanguageModel
from metashot.engine.models.sources import ModelConfig
from metashot.engine.report.build import ReportConfig
from metashot.engine.report.compare import CompareConfig
from metashot.engine.scoring import Scorer
from metashot.engine.training.learner import MetricSink
from metashot.engine.training.loop import TrainingOutcome
from metashot.engine.training.lr_range import LrRangeConfig
from metashot.engine.training.optimizers import OptimizerConfig
from metashot.icl.cell import Truncation
from metashot.icl.export import ExportConfig
from metashot.icl.methods import Method
from metashot.icl.plan import PlanConfig
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.training_settings import MetaTrainSettings
from metashot.metaprompt.clusters.store import CorpusConfig
from metashot.metaprompt.meta.config import SupmerConfig
from metashot.metaprompt.meta.probe import ProbeConfig
from metashot.metaprompt.tuning.config import TuningConfig
from metashot.stages.logger_config import LoggerConfig

MakeScorer = Callable[[PreTrainedModel], Scorer]


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
