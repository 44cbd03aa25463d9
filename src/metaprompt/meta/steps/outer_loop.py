"""One outer step over a batch of meta-tasks: gradients for the prompt and for psi, and what the curriculum needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metashot.base.errors import ConfigError
from metashot.metaprompt.backbone import Backbone
from metashot.metaprompt.meta.drawing.tasks import MetaTask
from metashot.metaprompt.meta.steps.inner_loop import PassRules, adapt, query_pass, support_pass
from metashot.metaprompt.meta.steps.interpolation import (
    coefficient_loss,
    curriculum_ratio,
    domain_similarity,
    draw_mixing_weights,
    gradient_similarity,
)
from metashot.metaprompt.meta.steps.regularizer import GradientRegularizer


@dataclass(frozen=True, slots=True)
class OuterRules:
    """The constants of an outer step.

    Attributes:
        inner_lr: alpha.
        second_order: differentiate through the inner gradient.
        coefficient_weight: weight of the coefficient loss.
        concentration: a of Beta(a, a c).
        curriculum_base: m of the curriculum.
        last_task_only: released behaviour, see `ReleasedBehaviour`.
        constant_similarity: released behaviour.
        passes: batching and padding.
        interpolate: mix query sets with augmentation tasks; False gives every query example the weight 1.
        regularize: pass inner gradients through psi; False takes them as they are, and psi learns nothing.
    """

    inner_lr: float
    second_order: bool
    coefficient_weight: float
    concentration: float
    curriculum_base: float
    last_task_only: bool
    constant_similarity: bool
    passes: PassRules
    interpolate: bool = True
    regularize: bool = True

    def __post_init__(self) -> None:
        """Raise ConfigError for a contradiction."""
        if self.second_order and self.last_task_only:
            raise ConfigError(
                "supmer.second_order", "true, but last_task_only is a first-order oddity", "switch one off"
            )


@dataclass(frozen=True, slots=True)
class OuterStep:
    """What one outer step gives; nothing has been updated yet.

    Attributes:
        prompt_gradient: [P, d].
        regularizer_gradients: one per parameter of psi, in its order.
        gradient_similarity: mean G over the sound tasks.
        skipped: indices of tasks whose loss or gradient was not finite; they contribute nothing.
        losses: mean query loss of each task, [N].
        metrics: numbers to log.
    """

    prompt_gradient: Tensor
    regularizer_gradients: tuple[Tensor, ...]
    gradient_similarity: float
    skipped: tuple[int, ...]
    losses: Tensor
    metrics: dict[str, float]


def mixing_weights(
    tasks: Sequence[MetaTask],
    query_batch: Sequence[int],
    *,
    similarity: float,
    rules: OuterRules,
    generator: np.random.Generator,
) -> list[list[float]]:
    """Lambda of each query example: one draw for every `query_batch` examples of a task."""
    if not rules.interpolate:
        return [[1.0] * len(task.query) for task in tasks]
    ratio = curriculum_ratio(similarity, rules.curriculum_base)
    weights: list[list[float]] = []
    for task, size in zip(tasks, query_batch, strict=True):
        draws = draw_mixing_weights(
            generator, -(-len(task.query) // size), concentration=rules.concentration, ratio=ratio
        )
        weights.append([float(draws[index // size]) for index in range(len(task.query))])
    return weights


def outer_step(
    backbone: Backbone,
    regularizer: GradientRegularizer,
    prompt: Tensor,
    tasks: Sequence[MetaTask],
    weights: Sequence[Sequence[float]],
    centroids: Tensor,
    rules: OuterRules,
    *,
    first_of_run: bool = False,
) -> OuterStep:
    """Gradients of (1/N) sum_i [query loss at theta - alpha psi(g_i)] and of the coefficient loss.

    One number as the prompt, theta = 1, alpha = 0.5, support loss theta^2 (g = 2), psi(g) = c g with c = 0.5, query loss
    (theta - 3)^2: the adapted prompt is 1 - 0.5 * 0.5 * 2 = 0.5, and the query gradient there is G = -5. Through the
    inner step theta gets G * (1 - 0.5 * 0.5 * 2) = -2.5, at first order G itself, and c gets G * (-0.5 * 2) = 5.

    Args:
        backbone: the frozen model.
        regularizer: psi.
        prompt: theta [P, d], requires gradients.
        tasks: N tasks.
        weights: mixing weight of each query example of each task.
        centroids: cluster centroids in the sentence encoder's space, [clusters, e].
        rules: constants.
        first_of_run: True at step 0; only the released constant similarity looks at it.
    """
    count = len(tasks)
    copies = prompt.expand(count, *prompt.shape)
    copies = copies.clone() if rules.second_order else copies.detach().clone().requires_grad_()
    support = support_pass(
        backbone, copies, [t.support for t in tasks], rules.passes, second_order=rules.second_order
    )
    started = _finite(support.gradients.detach(), support.losses)
    raw = torch.where(started[:, None, None], support.gradients, 0.0)
    regularized, coefficient = bend(regularizer if rules.regularize else None, raw, support.states)
    adapted = adapt(prompt, regularized, rules.inner_lr)
    query = query_pass(
        backbone, adapted, [t.query for t in tasks], [t.augmentation for t in tasks], weights, rules.passes
    )
    sound = started & _finite(query.gradients, query.losses)
    query_gradients = torch.where(sound[:, None, None], query.gradients, 0.0)

    domain = torch.stack([_domain(centroids, task) for task in tasks]).to(prompt.device)
    similarity = _similarity(query_gradients, regularized.detach(), rules, first_of_run=first_of_run)
    penalty = torch.where(sound, coefficient_loss(coefficient, domain, similarity), 0.0).sum() / count
    # <G_i, theta_i> has G_i as its gradient by theta_i, so this sum carries the query gradients on.
    surrogate = (adapted * query_gradients).sum() / count + rules.coefficient_weight * penalty
    parameters = list(regularizer.parameters())
    prompt_gradient, *regularizer_gradients = torch.autograd.grad(
        surrogate, [prompt, *parameters], allow_unused=True, materialize_grads=True
    )
    if rules.last_task_only:
        prompt_gradient = query_gradients[-1] / count
    metrics = {
        "support_loss": _mean(support.losses, sound),
        "coefficient": _mean(coefficient.detach(), sound),
        "coefficient_loss": float(penalty.detach()),
        "domain_similarity": _mean(domain, sound),
        "gradient_similarity": _mean(similarity, sound),
        "relative_inner_step": float(
            rules.inner_lr * regularized.detach().norm() / (count**0.5 * prompt.detach().norm())
        ),
        "mixing_weight": float(np.mean([w for row in weights for w in row])),
    }
    return OuterStep(
        prompt_gradient,
        tuple(regularizer_gradients),
        metrics["gradient_similarity"],
        tuple(int(index) for index in torch.nonzero(~sound).flatten()),
        query.losses,
        metrics,
    )


def bend(regularizer: GradientRegularizer | None, raw: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the inner step [N, P, d] and the coefficients [N]; without psi, `raw` itself and 1."""
    if regularizer is None:
        return raw, torch.ones(raw.shape[0], device=raw.device)
    return regularizer(raw, torch.nan_to_num(states))


def _finite(gradients: Tensor, losses: Tensor) -> Tensor:
    """Which tasks have a finite loss and gradient, [N]."""
    return torch.isfinite(gradients).flatten(1).all(dim=1) & torch.isfinite(losses)


def _mean(values: Tensor, sound: Tensor) -> float:
    """Mean over the sound tasks, 0 without any."""
    return float(values[sound].mean()) if bool(sound.any()) else 0.0


def _domain(centroids: Tensor, task: MetaTask) -> Tensor:
    return domain_similarity(centroids[list(task.clusters)], centroids[list(task.augmentation_clusters)])


def _similarity(
    query_gradients: Tensor, regularized: Tensor, rules: OuterRules, *, first_of_run: bool
) -> Tensor:
    similarity = gradient_similarity(query_gradients, regularized)
    if not rules.constant_similarity:
        return similarity
    constant = torch.full_like(similarity, 0.5)
    if first_of_run:
        constant[0] = similarity[0]
    return constant
