"""Settings of meta-training, and what follows from them alone: psi, tasks and the constants of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from metashot.data.value_kinds import (
    Count,
    GivenLine,
    InnerShare,
    LearningRate,
    Positive,
    PositiveWeight,
    Seed,
    Share,
    Weight,
)
from metashot.engine.errors import ConfigError
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.loop import LoopConfig
from metashot.engine.training.optimizers import OptimizerConfig
from metashot.metaprompt.backbone import embedding_width
from metashot.metaprompt.clusters.pseudo_tokens import (
    CENTERED_EMBEDDINGS,
    INPUT_EMBEDDINGS,
    cluster_embeddings,
    load_cluster_vectors,
)
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.domains import split_domains
from metashot.metaprompt.meta.formats import RenderRules, bind_format, format_names, load_format, resize
from metashot.metaprompt.meta.inner_loop import PassRules
from metashot.metaprompt.meta.outer_loop import OuterRules
from metashot.metaprompt.meta.regularizer import GradientRegularizer, RegularizerConfig
from metashot.metaprompt.meta.released_behaviour import ReleasedBehaviour, released_behaviour
from metashot.metaprompt.meta.tasks import TaskStream, check_stream


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
        inner_lr: alpha.
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
    inner_lr: LearningRate
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


def regularizer_config(config: RegularizerConfig, behaviour: ReleasedBehaviour) -> RegularizerConfig:
    """Psi's shape with the released ReLU branch where that oddity is on."""
    if not behaviour.learned_branch_relu:
        return config
    return replace(config, residual=False, last_activation="relu", init="normal")


def make_regularizer(width: int, config: RegularizerConfig, seed: int) -> GradientRegularizer:
    """Psi with its start fixed by `seed`, without touching the global generator's state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GradientRegularizer(width, config)


def task_stream(settings: MetaConfig, language_model: LanguageModel, store: ClusterStore) -> TaskStream:
    """The meta-tasks of a run.

    Raises:
        DataError: a verbalizer that is not one token, or a corpus without eligible domains.
        ConfigError: fewer eligible domains than a task needs.
    """
    behaviour = settings.behaviour()
    rules = RenderRules(
        settings.max_context_tokens,
        bare_pieces=behaviour.bare_label_pieces,
        released_truncation=behaviour.released_truncation,
        third_position=behaviour.third_position,
    )
    domains = split_domains(
        store,
        held_out_fraction=settings.held_out_fraction,
        min_sentences=settings.min_domain_sentences,
        seed=settings.seed,
    )
    formats = [resize(load_format(name), settings.examples_per_set) for name in settings.formats]
    renderers = tuple(
        bind_format(format_, language_model.tokenizer, rules, is_seq2seq=language_model.is_seq2seq)
        for format_ in formats
    )
    stream = TaskStream(
        renderers,
        domains["meta_train"],
        domains["meta_test"],
        settings.seed,
        settings.tasks_per_step,
        settings.steps_per_draw,
        behaviour.repeats,
    )
    check_stream(stream, {name: part for name, part in domains.items()})
    return stream


def outer_rules(settings: MetaConfig) -> OuterRules:
    """The constants of an outer step."""
    behaviour = settings.behaviour()
    return OuterRules(
        inner_lr=settings.inner_lr,
        second_order=settings.second_order,
        coefficient_weight=settings.coefficient_weight,
        concentration=settings.concentration,
        curriculum_base=settings.curriculum_base,
        last_task_only=behaviour.last_task_only,
        constant_similarity=behaviour.constant_similarity,
        passes=PassRules(
            settings.max_batch_tokens,
            settings.max_context_tokens if behaviour.state_over_padding else None,
            state_over_padding=behaviour.state_over_padding,
            mix_padding=behaviour.mix_padding,
        ),
        interpolate=settings.interpolate,
        regularize=settings.regularize,
    )


def pseudo_embeddings(
    settings: MetaConfig, language_model: LanguageModel, store: ClusterStore
) -> Tensor | None:
    """Input embeddings of the clusters on the model's device, or None when no format needs them."""
    if "scc" not in settings.formats:
        return None
    if settings.pseudo_tokens in (INPUT_EMBEDDINGS, CENTERED_EMBEDDINGS):
        centered = settings.pseudo_tokens == CENTERED_EMBEDDINGS
        vectors = cluster_embeddings(store, language_model, settings.seed, centered=centered)
    else:
        width = embedding_width(language_model)
        vectors = load_cluster_vectors(Path(settings.pseudo_tokens), store.count, width)
    return vectors.to(language_model.device)
