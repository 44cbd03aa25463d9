"""The settings of meta-training, and what identifies a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from metashot.base.components.values import as_plain
from metashot.base.value_kinds import Count, Name, Positive, PositiveShare, Seed, Share, Weight
from metashot.data.rows.episodes import TaskSampling
from metashot.data.task import Example
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.engine.training.config import LoopConfig, OptimizerConfig, TrainableConfig
from metashot.icl.learning.sequence_labels import DemonstrationLabels
from metashot.icl.learning.sequences import LossOn
from metashot.icl.prompting.config import RELEASED_PROMPT, MetaiclPrompt, PromptConfig
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.prompt import Layout, LengthLimits

if TYPE_CHECKING:
    from metashot.engine.models.loading import LanguageModel


class Batching(StrEnum):
    """How sequences of a step are put together."""

    BUCKETED = "bucketed"
    """Sequences of similar length share a batch, padded to its longest."""
    PACKED = "packed"
    """Several sequences in a row, which cannot see each other; no padding to speak of."""
    PADDED = "padded"
    """Released code: sequences in drawn order, each padded to the sequence limit."""


@dataclass(frozen=True)
class EpisodeConfig:
    """Where sequences come from and how they are put together (`trainer` keys).

    Attributes:
        task_sampling: `proportional` (released code) or `uniform` (paper).
        pool_size: most examples of a training task.
        pool_seed: seed of the training files.
        pool_fraction: share of each pool that is kept (released code: 0.1 with demonstrations and 0.5 without, in
            the all-instructions setting).
        training_tasks: train on this many tasks, or None for all.
        training_tasks_draw: which draw of them.
        generated_tasks: so many procedural tasks of `data=synthetic` (its training families, easy) beside the others.
        demonstration_labels: the label ablation.
        no_masking: every token is a target.
        loss_on: the examples of a sequence that are trained on: `query` (MetaICL) or `every` with a demonstration
            before it.
        token_weight: of the loss over the right answer's tokens (MetaICL: 1).
        option_weight: of the cross-entropy over the options of a question, scored as evaluation scores them; 0
            (MetaICL) leaves wrong options out of the sequences.
        replaced_share: with `demonstration_labels=random_words`, share of the sequences whose labels become words.
        released_free_form: nothing between input and output of examples without options (released code).
        balanced_labels: draw every label of a task equally often, each example's by itself.
        batching: `bucketed`, `packed` or `padded`.
        batch_size: sequences of an optimizer step, over all processes.
        micro_batch_size: sequences of one forward pass, the rest of a step is accumulated; `auto` takes what fits
            into the memory that is free (`icl.slices`).
        bucket_batches: batches among which lengths are sorted.
        limits: token limits.
    """

    task_sampling: TaskSampling = TaskSampling.PROPORTIONAL
    pool_size: Positive = 16384
    pool_seed: Seed = 100
    pool_fraction: PositiveShare = 1.0
    training_tasks: Positive | None = None
    training_tasks_draw: Seed = 0
    generated_tasks: Count = 0
    demonstration_labels: DemonstrationLabels = DemonstrationLabels.GOLD
    no_masking: bool = False
    loss_on: LossOn = LossOn.QUERY
    token_weight: Weight = 1.0
    option_weight: Weight = 0.0
    replaced_share: Share = 1.0
    balanced_labels: bool = False
    released_free_form: bool = False
    batching: Batching = Batching.BUCKETED
    batch_size: Positive = 8
    micro_batch_size: Positive | Literal["auto"] = "auto"
    bucket_batches: Positive = 16
    limits: LengthLimits = field(default_factory=LengthLimits)


@dataclass(frozen=True, slots=True)
class HeldOutConfig:
    """`trainer.held_out` keys.

    Attributes:
        tasks: target tasks; empty takes all targets of the setting.
        k: demonstrations.
        seeds: demonstration seeds.
        test_examples: at most so many test examples of each task.
        from_pool: `tasks` are training tasks that are not trained on; demonstrations and test examples come from
            their pools.
    """

    tasks: tuple[Name, ...] = ()
    k: Count = 16
    seeds: tuple[Seed, ...] = (100,)
    test_examples: Positive = 50
    from_pool: bool = False


@dataclass(frozen=True, slots=True)
class MetaTrainSettings:
    """Everything `train` needs besides model and data.

    Attributes:
        method: what to train for; `method.trained` must be true.
        prompt: how examples become sequences; its limits are those of `episodes`.
        k: demonstrations (ignored by methods without).
        seed: of data order, dropout and LoRA weights.
        episodes: sequences and batches.
        optimizer: optimizer and schedule.
        trainable: precision, LoRA, ...
        loop: steps, evaluation, saving.
        held_out: evaluation while training.
        keep_last: newest checkpoints to keep.
        keep_best: best checkpoints to keep besides.
    """

    method: Method
    prompt: PromptConfig = field(default_factory=MetaiclPrompt)
    k: int = 16
    seed: int = 1
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainable: TrainableConfig = field(default_factory=TrainableConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=30_000))
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    keep_last: int = 2
    keep_best: int = 1

    @property
    def shots(self) -> int:
        """Demonstrations of each training sequence."""
        return self.method.shots(self.k)


def trained_for(settings: MetaTrainSettings, tokenizer: AnyTokenizer) -> dict[str, Any]:
    """What a checkpoint's manifest says of its method; evaluation must agree with it.

    `prompt` and `bos` stand there only where they differ from the released code.
    """
    method, prompt = settings.method, settings.prompt.trained_as()
    return {
        **({} if prompt == RELEASED_PROMPT else {"prompt": prompt}),
        **({"bos": True} if settings.prompt.bos_of(tokenizer) else {}),
        "name": method.name,
        "objective": method.objective.value,
        "demonstrations": method.demonstrations,
        "k": settings.shots,
        "layout": Layout.NEWLINE.value,
        "calibration": method.calibration.name,
        "normalization": method.normalization.name,
        "trained": True,
    }


def run_identity(
    settings: MetaTrainSettings, language_model: LanguageModel, pools: Mapping[str, Sequence[Example]]
) -> dict[str, Any]:
    """What must be equal for a run to continue a checkpoint, by dotted config key."""
    identity: dict[str, Any] = {
        "model.weights": language_model.weights_digest,
        "model.tokenizer": language_model.tokenizer_digest,
        "data.pools": pools_digest(pools),
        "k": settings.shots,
        "seed": settings.seed,
        "trainer.steps": settings.loop.steps,
        "trainer.evaluate_every": settings.loop.evaluate_every,
    }
    groups = {
        "method": trained_for(settings, language_model.tokenizer),
        "trainer": {**asdict(settings.episodes), **asdict(settings.trainable)},
        "optimizer": as_plain(settings.optimizer),
        "trainer.held_out": asdict(settings.held_out),
    }
    for prefix, values in groups.items():
        identity |= {f"{prefix}.{key}": value for key, value in values.items()}
    return identity


def pools_digest(pools: Mapping[str, Sequence[Example]]) -> str:
    """sha256 over all training examples, in order."""
    digest = hashlib.sha256()
    for task, pool in pools.items():
        digest.update(f"{task}\n{len(pool)}\n".encode())
        for example in pool:
            digest.update("\x1f".join((example.input, example.output, *example.options)).encode() + b"\x1e")
    return digest.hexdigest()
