"""The keys of meta-training and of its probe. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from metashot.base.errors import ConfigError
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
from metashot.metaprompt.meta.format_names import format_names
from metashot.metaprompt.meta.released_behaviour import ReleasedBehaviour, released_behaviour


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
    """The shape of psi; `conf/supmer/*.yaml` key `regularizer`.

    Attributes:
        rank: rank of each layer, cut to the embedding width.
        hidden_layers: low-rank layers before the last one.
        residual: add each layer's input to its output.
        last_activation: `none` or `relu` (released code: `relu`).
        init: start of the low-rank factors.
        rescale: how h is given the size of g.
        coefficient_width: hidden units of the coefficient network.
    """

    rank: Positive
    hidden_layers: Count
    residual: bool
    last_activation: str
    init: str
    rescale: str
    coefficient_width: Positive

    def __post_init__(self) -> None:
        """Check the named choices.

        Raises:
            ConfigError: a value outside its rule.
        """
        _member("last_activation", self.last_activation, ("none", "relu"))
        _member("init", self.init, tuple(LayerInit))
        _member("rescale", self.rescale, tuple(Rescale))


def _member(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"supmer.regularizer.{key}", f"unknown value {value!r}", f"one of {', '.join(allowed)}"
        )


@dataclass(frozen=True, slots=True)
class MetaConfig:
    """`conf/supmer/*.yaml`; the field names are its keys.

    Attributes:
        prompt_length: virtual tokens.
        prompt_init: `vocabulary` or `random`.
        prompt_path: a prompt to start from, or None.
        formats: meta-task formats by name (or YAML files), in order.
        examples_per_set: support and query examples of a task; null takes the counts of the format files.
        tasks_per_step: tasks of one outer step.
        steps_per_draw: outer steps that share one format.
        max_context_tokens: context limit, soft prompt not counted.
        max_batch_tokens: padded tokens of one forward pass.
        inner_lr: alpha; 0 is multi-task training of the prompt.
        second_order: differentiate through the inner gradient.
        interpolate: mix query sets with those of augmentation tasks.
        regularize: pass inner gradients through psi; without, only the prompt is learned.
        coefficient_weight: weight of the coefficient loss.
        concentration: a of Beta(a, a c).
        curriculum_base: m of the curriculum.
        similarity_decay: weight of the past in the running similarity.
        held_out_fraction: share of documents kept for held-out tasks.
        min_domain_sentences: fewest sentences of a training domain.
        test_tasks_per_format: held-out tasks per format in an evaluation.
        test_queries: fewest queries of an evaluation in all; each task takes its share.
        pseudo_tokens: `input_embeddings`, `centered_embeddings`, or an .npy file of given vectors.
        dropout: run the model with its dropout in training.
        max_skipped_tasks: stop after so many tasks with a non-finite loss or gradient.
        seed: of prompt, psi, tasks, mixing and dropout.
        regularizer: psi's shape.
        prompt_optimizer: outer optimizer of the prompt.
        regularizer_optimizer: outer optimizer of psi.
        as_released: do all as the released code.
        switches: single oddities on or off; null follows `as_released`.
    """

    prompt_length: Positive
    prompt_init: Literal["vocabulary", "random"]
    prompt_path: str | None
    formats: tuple[GivenLine, ...]
    examples_per_set: Positive | None
    tasks_per_step: Positive
    steps_per_draw: Positive
    max_context_tokens: Positive
    max_batch_tokens: Positive
    inner_lr: InnerRate
    second_order: bool
    interpolate: bool
    regularize: bool
    coefficient_weight: Weight
    concentration: PositiveWeight
    curriculum_base: Annotated[float, Field(gt=1, le=1e6)]
    similarity_decay: Share
    held_out_fraction: InnerShare
    min_domain_sentences: Positive
    test_tasks_per_format: Positive
    test_queries: Positive
    pseudo_tokens: GivenLine
    dropout: bool
    max_skipped_tasks: Count
    seed: Seed
    regularizer: RegularizerConfig
    prompt_optimizer: OptimizerConfig
    regularizer_optimizer: OptimizerConfig
    as_released: bool
    switches: Mapping[str, bool | None]

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
    """The whole node `supmer`: meta-training with its loop.

    Attributes:
        loop: steps, evaluation, saving.
        checkpoints: their folder.
    """

    loop: LoopConfig
    checkpoints: Path


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """The node `probe` of the config.

    Attributes:
        train: records of each format that fit the probe, from meta-training documents.
        test: records that test it, from held-out documents.
        seed: of the records.
    """

    train: Positive = 512
    test: Positive = 512
    seed: Seed = 0
