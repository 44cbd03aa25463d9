"""What follows from the settings of meta-training alone: psi, tasks and the constants of a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import embedding_width
from metashot.metaprompt.clusters.pseudo_tokens import (
    CENTERED_EMBEDDINGS,
    INPUT_EMBEDDINGS,
    cluster_embeddings,
    load_cluster_vectors,
)
from metashot.metaprompt.clusters.store import ClusterStore
from metashot.metaprompt.meta.config import LayerInit, MetaConfig, RegularizerConfig
from metashot.metaprompt.meta.drawing.domains import split_domains
from metashot.metaprompt.meta.drawing.formats import RenderRules, bind_format, load_format, resize
from metashot.metaprompt.meta.drawing.tasks import TaskStream, check_stream
from metashot.metaprompt.meta.released_behaviour import ReleasedBehaviour
from metashot.metaprompt.meta.steps.inner_loop import PassRules
from metashot.metaprompt.meta.steps.outer_loop import OuterRules
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer


def regularizer_config(config: RegularizerConfig, behaviour: ReleasedBehaviour) -> RegularizerConfig:
    """Psi's shape with the released ReLU branch where that oddity is on."""
    if not behaviour.learned_branch_relu:
        return config
    return replace(config, residual=False, last_activation="relu", init=LayerInit.NORMAL)


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
