"""Task interpolation with its curriculum, and the two similarities that steer it: pure functions.

Source: the authors' code (`model/meta.py`), restated in formulas; nothing here touches a model or a global generator.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_SMALLEST_RATIO = 1e-7


def curriculum_ratio(similarity: float, base: float) -> float:
    """C = (m^s - 1) / (m - 1) + 1e-7: 0 -> 0 (no mixing), 1 -> 1 (uniform mixing).

    Args:
        similarity: running gradient similarity s in [0, 1].
        base: m > 1; 2 in the authors' code.
    """
    return (base**similarity - 1) / (base - 1) + _SMALLEST_RATIO


def draw_mixing_weights(
    generator: np.random.Generator, count: int, *, concentration: float, ratio: float
) -> NDArray[np.float64]:
    """`count` weights of the original task, lambda ~ Beta(a, a * c); a = `concentration`, c = `ratio`."""
    return generator.beta(concentration, concentration * ratio, size=count)


def mix(
    first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"], weight: Float[Tensor, ...]
) -> Float[Tensor, "*shape"]:
    """Weight * first + (1 - weight) * second; exactly `first` at 1 and `second` at 0."""
    return weight * first + (1 - weight) * second


def mix_states(
    first: Float[Tensor, "B L d"],
    first_mask: Bool[Tensor, "B L"],
    second: Float[Tensor, "B L d"],
    second_mask: Bool[Tensor, "B L"],
    weight: Float[Tensor, " B"],
    *,
    mix_padding: bool,
) -> tuple[Float[Tensor, "B L d"], Bool[Tensor, "B L"]]:
    """Encoder states of two batches mixed position by position.

    Args:
        first: states of the original task, [B, L, d].
        first_mask: True where `first` is a real position, [B, L].
        second: states of the augmentation task, [B, L, d].
        second_mask: True where `second` is a real position, [B, L].
        weight: lambda of each example, [B].
        mix_padding: False mixes only where both are real and takes the real one elsewhere; True is the released
            rule, which mixes real tokens with the other's padding states.

    Returns:
        Mixed states [B, L, d] and their mask [B, L]. With `mix_padding=False` a weight of 1 (0) gives the first
        (second) batch and its mask exactly.
    """
    share = weight[:, None].expand_as(first[..., 0]).to(first.dtype)
    if mix_padding:
        return mix(first, second, share[..., None]), first_mask | second_mask
    first_mask = first_mask & (weight > 0)[:, None]
    second_mask = second_mask & (weight < 1)[:, None]
    share = torch.where(first_mask & second_mask, share, first_mask.to(first.dtype))
    return mix(first, second, share[..., None]), first_mask | second_mask


def mixed_target_loss(
    logits: Float[Tensor, "B T V"],
    first_ids: Int[Tensor, "B T"],
    second_ids: Int[Tensor, "B T"],
    weight: Float[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """KL(lambda onehot(first) + (1 - lambda) onehot(second) || model), summed over positions: [B], in nats.

    Args:
        logits: [B, T, V].
        first_ids: target ids of the original task, [B, T].
        second_ids: target ids of the augmentation task, [B, T].
        weight: lambda, [B].
    """
    log_probabilities = functional.log_softmax(logits.float(), dim=-1)
    first = log_probabilities.gather(-1, first_ids[..., None]).squeeze(-1)
    second = log_probabilities.gather(-1, second_ids[..., None]).squeeze(-1)
    share = weight[:, None].to(first.dtype).expand_as(first)
    negative_entropy = torch.where(
        first_ids == second_ids,
        torch.zeros_like(share),
        torch.special.xlogy(share, share) + torch.special.xlogy(1 - share, 1 - share),
    )
    return (negative_entropy - share * first - (1 - share) * second).sum(dim=-1)


def update_similarity(running: float, batch_mean: float, decay: float) -> float:
    """Running gradient similarity after an outer step: the first mean as it is, then an exponential average."""
    return batch_mean if running == 0.0 else decay * running + (1 - decay) * batch_mean


def domain_similarity(first: Float[Tensor, "n e"], second: Float[Tensor, "m e"]) -> Float[Tensor, ""]:
    """D = (1 + cos(mean of `first`, mean of `second`)) / 2 for two sets of cluster centroids [n, e]: a scalar."""
    return (1 + functional.cosine_similarity(first.mean(dim=0), second.mean(dim=0), dim=0)) / 2


def gradient_similarity(
    query_gradient: Float[Tensor, "*tasks P d"], support_gradient: Float[Tensor, "*tasks P d"]
) -> Float[Tensor, "*tasks"]:
    """G = (1 + mean over prompt rows of the cosine) / 2: two [..., P, d] -> [...]."""
    cosine = functional.cosine_similarity(query_gradient, support_gradient, dim=-1)
    return (1 + cosine.mean(dim=-1)) / 2


def coefficient_loss(
    coefficient: Float[Tensor, "*tasks"], domain: Float[Tensor, "*tasks"], gradient: Float[Tensor, "*tasks"]
) -> Float[Tensor, "*tasks"]:
    """(D/2 + G/2 - z)^2 per task, with D and G as constants: three [...] -> [...]."""
    return (0.5 * domain.detach() + 0.5 * gradient.detach() - coefficient) ** 2
