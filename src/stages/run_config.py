"""The whole config as one dataclass: what every key of `conf/config.yaml` is, and what every group must make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from transformers import PreTrainedModel

from metashot.data.modules import DataModule
from metashot.data.selected_source import Selection
from metashot.engine.models.sources import ModelConfig
from metashot.engine.scoring import Scorer
from metashot.icl.cell import Truncation
from metashot.icl.export import ExportSettings
from metashot.icl.plan import PlanSettings
from metashot.icl.prompting.config import PromptConfig

MakeScorer = Callable[[PreTrainedModel], Scorer]


class AnyMethod(Protocol):
    """A choice of `conf/method`: an in-context `Method`, or a `PromptMethod`."""

    @property
    def name(self) -> str:
        """The name that results carry."""
        ...


@dataclass(frozen=True, slots=True)
class SettingChoice:
    """A choice of `conf/setting`.

    Attributes:
        name: a setting of `data.settings`, or a YAML file of one's own.
    """

    name: str


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """The config node `report`: the keys of `ReportSettings` less its folders."""

    formats: tuple[str, ...]
    draws: int
    permutations: int
    level: float
    seed: int
    folder: Path | None


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """The config node `compare`."""

    flipped: int
    permutations: int
    seed: int


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Every key of the composed config; comments on the keys stand in `conf/config.yaml`."""

    data: DataModule
    setting: SettingChoice | None
    method: AnyMethod
    model: ModelConfig
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    prepare: dict[str, Any]
    corpus: dict[str, Any]
    supmer: dict[str, Any]
    tuning: dict[str, Any]
    scorer: MakeScorer
    logger: dict[str, Any]
    stage: str | tuple[str, ...]
    k: int
    seeds: tuple[int, ...]
    split: Literal["test", "dev"]
    truncation: Truncation
    checkpoint: Path | None
    results_root: Path
    condition: str
    name: str | None
    tags: tuple[str, ...]
    selection: Selection
    prompt: PromptConfig
    runs: tuple[Path, ...]
    run: Path | None
    report: ReportConfig
    compare: CompareConfig
    plan: PlanSettings
    export: ExportSettings

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in order."""
        return (self.stage,) if isinstance(self.stage, str) else self.stage
