"""The trainer of in-context methods, as `conf/trainer` writes it: flat keys of episodes, model and loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metashot.base.components.values import part_of
from metashot.base.errors import ConfigError
from metashot.base.value_kinds import Count, Positive, Seed
from metashot.data.tasks.source import TaskSource
from metashot.engine.training.config import LoopConfig, OptimizerConfig, TrainableConfig
from metashot.engine.training.learner import MetricSink
from metashot.icl.learning.training_settings import EpisodeConfig, HeldOutConfig, MetaTrainSettings
from metashot.icl.prompting.config import PromptConfig
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import LengthLimits

if TYPE_CHECKING:
    from metashot.engine.models.loading import LanguageModel
    from metashot.engine.training.loop import TrainingOutcome


@dataclass(frozen=True)
class MetaTrainer(LoopConfig, EpisodeConfig, TrainableConfig):
    """MetaICL's meta-training; one file of `conf/trainer` each."""

    seed: Seed = 1
    """Seed of data order, dropout and LoRA weights."""
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    """Evaluation while training."""
    keep_last: Positive = 2
    """Newest checkpoints to keep."""
    keep_best: Count = 1
    """Best checkpoints to keep besides."""
    limits: LengthLimits = field(default_factory=LengthLimits, init=False)

    def settings(
        self, method: Method, prompt: PromptConfig, k: int, optimizer: OptimizerConfig
    ) -> MetaTrainSettings:
        """Everything `icl.meta_training.train` needs besides model and data.

        Raises:
            ConfigError: sequences of any length.
        """
        if prompt.max_length == "model":
            raise ConfigError(
                "prompt.max_length",
                "'model' is for evaluation",
                "give the tokens of a training sequence: 1024",
            )
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
        from metashot.icl.learning.meta_training import train

        return train(settings, model, source, train_tasks, target_tasks, output, sink)
