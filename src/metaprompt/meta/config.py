"""The keys of meta-training and of its probe. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from metashot.base.components.values import hold_to_choices
from metashot.base.errors import ConfigError
from metashot.base.identity import ByContent
from metashot.base.value_kinds import (
    Count,
    GivenLine,
    InnerRate,
    InnerShare,
    Positive,
    PositiveWeight,
    Seed,
    Share,
    Weight,
)
from metashot.engine.training.config import LoopConfig, OptimizerConfig
from metashot.metaprompt.meta.drawing.format_names import format_names
from metashot.metaprompt.meta.released_behaviour import ReleasedBehaviour, released_behaviour
from metashot.metaprompt.prompt_starts import GivenStart


class Rescale(StrEnum):
    """How the learned direction h is given the size of the raw gradient g."""

    ROW_L2 = "row_l2"
    """Each row of h gets the L2 norm of the same row of g (released code: choice 0)."""
    MATRIX_L2 = "matrix_l2"
    """The whole of h gets the L2 norm of g (choice 1)."""
    ROW_L1 = "row_l1"
    """Each row of h gets the mean absolute value of the same row of g (choice 2)."""
    MATRIX_L1 = "matrix_l1"
    """The whole of h gets the mean absolute value of g (choice 3)."""


class LayerInit(StrEnum):
    """How the low-rank factors start."""

    NEAR_IDENTITY = "near_identity"
    """V ~ N(0, 1/d), U so small that a residual layer changes g by about one percent."""
    XAVIER = "xavier"
    """Xavier uniform, with the ReLU gain on U."""
    NORMAL = "normal"
    """Every entry of U and V from N(0, 1): what the released code calls `id`."""


@dataclass(frozen=True, slots=True)
class RegularizerConfig:
    """The shape of psi; `conf/supmer/*.yaml` key `regularizer`."""

    rank: Positive
    """Rank of each layer, cut to the embedding width."""
    hidden_layers: Count
    """Low-rank layers before the last one."""
    residual: bool
    """Add each layer's input to its output."""
    last_activation: Literal["none", "relu"]
    """What follows the last layer (released code: `relu`)."""
    init: LayerInit
    """Start of the low-rank factors."""
    rescale: Rescale
    """How h is given the size of g."""
    coefficient_width: Positive
    """Hidden units of the coefficient network."""

    def __post_init__(self) -> None:
        """Check the named choices.

        Raises:
            ConfigError: a value outside its rule.
        """
        hold_to_choices(self, "supmer.regularizer")


@dataclass(frozen=True, slots=True)
class MetaConfig:
    """`conf/supmer/*.yaml`; the field names are its keys."""

    prompt_length: Positive
    """Virtual tokens."""
    prompt_init: GivenStart
    """How a new prompt starts."""
    prompt_path: Annotated[str | None, ByContent()]
    """A prompt to start from, or None."""
    formats: Annotated[tuple[GivenLine, ...], ByContent()]
    """Meta-task formats by name (or YAML files), in order."""
    examples_per_set: Positive | None
    """Support and query examples of a task; null takes the counts of the format files."""
    tasks_per_step: Positive
    """Tasks of one outer step."""
    steps_per_draw: Positive
    """Outer steps that share one format."""
    max_context_tokens: Positive
    """Context limit, soft prompt not counted."""
    max_batch_tokens: Positive
    """Padded tokens of one forward pass."""
    inner_lr: InnerRate
    """Learning rate of the inner step; 0 is multi-task training of the prompt."""
    second_order: bool
    """Differentiate through the inner gradient."""
    interpolate: bool
    """Mix query sets with those of augmentation tasks."""
    regularize: bool
    """Pass inner gradients through psi; without, only the prompt is learned."""
    coefficient_weight: Weight
    """Weight of the coefficient loss."""
    concentration: PositiveWeight
    """The a of Beta(a, a c), which mixing weights are drawn from."""
    curriculum_base: Annotated[float, Field(gt=1, le=1e6)]
    """The m of the curriculum: c = (m^s - 1) / (m - 1), with s the running similarity of gradients."""
    similarity_decay: Share
    """Weight of the past in the running similarity."""
    held_out_fraction: InnerShare
    """Share of documents kept for held-out tasks."""
    min_domain_sentences: Positive
    """Fewest sentences of a training domain."""
    test_tasks_per_format: Positive
    """Held-out tasks per format in an evaluation."""
    test_queries: Positive
    """Fewest queries of an evaluation in all; each task takes its share."""
    pseudo_tokens: Annotated[GivenLine, ByContent()]
    """`input_embeddings`, `centered_embeddings`, or an .npy file of given vectors."""
    dropout: bool
    """Run the model with its dropout in training."""
    max_skipped_tasks: Count
    """Stop after so many tasks with a non-finite loss or gradient."""
    seed: Seed
    """Seed of prompt, psi, tasks, mixing and dropout."""
    regularizer: RegularizerConfig
    """Shape of psi, the gradient regularizer."""
    prompt_optimizer: OptimizerConfig
    """Outer optimizer of the prompt."""
    regularizer_optimizer: OptimizerConfig
    """Outer optimizer of psi."""
    as_released: bool
    """Do all as the released code."""
    switches: Mapping[str, bool | None]
    """Single oddities on or off; null follows `as_released`."""

    def __post_init__(self) -> None:
        """Raise ConfigError when there is no format."""
        if not self.formats:
            raise ConfigError(
                "supmer.formats", "is empty", f"give at least one of {', '.join(format_names())}"
            )

    def behaviour(self) -> ReleasedBehaviour:
        """The oddities that are on."""
        return released_behaviour(self.as_released, self.switches)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupmerConfig(MetaConfig):
    """The whole node `supmer`: meta-training with its loop."""

    loop: LoopConfig
    """Steps, evaluation, saving."""
    checkpoints: Path
    """Folder of the checkpoints."""


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """The node `probe` of the config."""

    train: Positive = 512
    """Records of each format that fit the probe, from meta-training documents."""
    test: Positive = 512
    """Records that test it, from held-out documents."""
    seed: Seed = 0
    """Seed of the records."""
