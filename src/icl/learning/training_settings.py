"""The settings of meta-training, and what identifies a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from metashot.base.identity import NoEffect, deciding_fields, identity_of, marked
from metashot.base.value_kinds import Count, Name, Positive, PositiveShare, Seed, Share, Weight
from metashot.data.rows.episodes import TaskSampling
from metashot.data.task import Example
from metashot.engine.models.text_tokenizer import AnyTokenizer
from metashot.engine.training.config import LoopConfig, OptimizerConfig, TrainableConfig
from metashot.icl.learning.writing.sequence_labels import DemonstrationLabels
from metashot.icl.learning.writing.sequences import LossOn
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
    """Where sequences come from and how they are put together (`trainer` keys)."""

    task_sampling: TaskSampling = TaskSampling.PROPORTIONAL
    """How often each task is drawn."""
    pool_size: Positive = 16384
    """Most examples of a training task."""
    pool_seed: Seed = 100
    """Seed of the training files."""
    pool_fraction: PositiveShare = 1.0
    """Share of each pool that is kept (released code: 0.1 with demonstrations and 0.5 without, in the
    all-instructions setting)."""
    training_tasks: Positive | None = None
    """Train on this many tasks, or None for all."""
    training_tasks_draw: Seed = 0
    """Which draw of them."""
    generated_tasks: Count = 0
    """So many procedural tasks of `data=synthetic` (its training families, easy) beside the others."""
    demonstration_labels: DemonstrationLabels = DemonstrationLabels.GOLD
    """What stands where the demonstrations' labels are."""
    no_masking: bool = False
    """Every token is a target."""
    loss_on: LossOn = LossOn.QUERY
    """The examples of a sequence that are trained on: `query` (MetaICL) or `every` with a demonstration
    before it."""
    token_weight: Weight = 1.0
    """Weight of the loss over the right answer's tokens (MetaICL: 1)."""
    option_weight: Weight = 0.0
    """Weight of the cross-entropy over the options of a question, scored as evaluation scores them; 0 (MetaICL)
    leaves wrong options out of the sequences."""
    replaced_share: Share = 1.0
    """With `demonstration_labels=random_words`, share of the sequences whose labels become words."""
    balanced_labels: bool = False
    """Draw every label of a task equally often, each example's by itself."""
    released_free_form: bool = False
    """Nothing between input and output of examples without options (released code)."""
    batching: Batching = Batching.BUCKETED
    """How sequences of a step are put together."""
    batch_size: Positive = 8
    """Sequences of an optimizer step, over all processes."""
    micro_batch_size: Positive | Literal["auto"] = "auto"
    """Sequences of one forward pass, the rest of a step is accumulated; `auto` takes what fits into the
    memory that is free (on a CPU also no more than some 2,000 tokens)."""
    bucket_batches: Positive = 16
    """Batches among which lengths are sorted."""
    limits: LengthLimits = field(default_factory=LengthLimits)
    """Token limits, those of the prompt."""


@dataclass(frozen=True, slots=True)
class HeldOutConfig:
    """`trainer.held_out` keys."""

    tasks: tuple[Name, ...] = ()
    """Target tasks; empty takes all targets of the setting."""
    k: Count = 16
    """Demonstrations of a prompt."""
    seeds: tuple[Seed, ...] = (100,)
    """Demonstration seeds."""
    test_examples: Positive = 50
    """At most so many test examples of each task."""
    from_pool: bool = False
    """`tasks` are training tasks that are not trained on; demonstrations and test examples come from their
    pools."""


@dataclass(frozen=True, slots=True)
class MetaTrainSettings:
    """Everything `train` needs besides model and data."""

    method: Method
    """What to train for; `method.trained` must be true."""
    prompt: PromptConfig = field(default_factory=MetaiclPrompt)
    """How examples become sequences; its limits are those of `episodes`."""
    k: int = 16
    """Demonstrations (ignored by methods without)."""
    seed: int = 1
    """Seed of data order, dropout and LoRA weights."""
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    """Sequences and batches."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule."""
    trainable: TrainableConfig = field(default_factory=TrainableConfig)
    """Precision, LoRA, ..."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=30_000))
    """Steps, evaluation, saving."""
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    """Evaluation while training."""
    keep_last: Annotated[int, NoEffect("which steps are kept")] = 2
    """Newest checkpoints to keep."""
    keep_best: Annotated[int, NoEffect("which steps are kept")] = 1
    """Best checkpoints to keep besides."""

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
        "prompt.begin": list(settings.prompt.bos_of(language_model.tokenizer)),
    }
    silent = marked(MetaTrainSettings)
    for name, value in ((one.name, getattr(settings, one.name)) for one in fields(settings)):
        if name in silent:
            continue
        if is_dataclass(value):
            node = _NODES.get(name, name)
            identity |= {f"{node}.{key}": item for key, item in deciding_fields(value).items()}
            identity[f"{name}.class"] = identity_of(type(value))
        else:
            identity[name] = identity_of(value)
    return {**identity, "k": settings.shots}


_NODES = {"episodes": "trainer", "trainable": "trainer", "loop": "trainer", "held_out": "trainer.held_out"}
"""Fields of the settings to the config nodes that their keys stand in."""


def pools_digest(pools: Mapping[str, Sequence[Example]]) -> str:
    """sha256 over all training examples, in order."""
    digest = hashlib.sha256()
    for task, pool in pools.items():
        digest.update(f"{task}\n{len(pool)}\n".encode())
        for example in pool:
            digest.update("\x1f".join((example.input, example.output, *example.options)).encode() + b"\x1e")
    return digest.hexdigest()
