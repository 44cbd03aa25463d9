"""The trainer of in-context methods, as `conf/trainer` writes it: flat keys of episodes, model and loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from metashot.data.source import TaskSource
from metashot.data.value_kinds import Count, Positive, Seed
from metashot.engine.components.values import part_of
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.learner import MetricSink
from metashot.engine.training.loop import LoopConfig, TrainingOutcome
from metashot.engine.training.optimizers import OptimizerConfig
from metashot.engine.training.trainable import TrainableConfig
from metashot.icl.held_out import HeldOutConfig
from metashot.icl.meta_training import train
from metashot.icl.methods import Method
from metashot.icl.prompt import LengthLimits
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.training_settings import EpisodeConfig, MetaTrainSettings


@dataclass(frozen=True)
class MetaTrainer(LoopConfig, EpisodeConfig, TrainableConfig):
    """MetaICL's meta-training; one file of `conf/trainer` each.

    Attributes:
        seed: of data order, dropout and LoRA weights.
        held_out: evaluation while training.
        keep_last: newest checkpoints to keep.
        keep_best: best checkpoints to keep besides.
    """

    seed: Seed = 1
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    keep_last: Positive = 2
    keep_best: Count = 1
    limits: LengthLimits = field(default_factory=LengthLimits, init=False)
    config_node: str = field(default="trainer", init=False)

    def settings(
        self, method: Method, prompt: PromptConfig, k: int, optimizer: OptimizerConfig
    ) -> MetaTrainSettings:
        """Everything `icl.meta_training.train` needs besides model and data."""
        return MetaTrainSettings(
            method=method,
            prompt=prompt,
            k=k,
            seed=self.seed,
            episodes=replace(part_of(EpisodeConfig, self), limits=prompt.limits),
            optimizer=optimizer,
            trainable=part_of(TrainableConfig, self),
            loop=part_of(LoopConfig, self),
            held_out=self.held_out,
            keep_last=self.keep_last,
            keep_best=self.keep_best,
        )

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
        """Meta-train `model` in place; see `icl.meta_training.train`."""
        return train(settings, model, source, train_tasks, target_tasks, output, sink)
