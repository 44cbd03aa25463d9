"""What ails in-context answers: biases of the label distribution, ties, and answers that demonstrations or prompts change.

A bias is a total variation distance, 0 to 1: half the sum over options of |q - r|. *Contextual*: q the mean option
probability after content-free inputs, r uniform; *domain*: the same after random words of the task's inputs (both after
Fei et al. 2023); *posterior*: q the mean option probability over test rows, r the share of each option among their right
answers (after StaICC-Diag, Cho and Inoue 2025). Agreement: the chance that two different seeds, or two different prompts,
give a test row the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from metashot.engine.metrics.classification import Floats

_TIE = 1e-9


def distance(first: Floats, second: Floats) -> float:
    """Total variation distance of two distributions [options]."""
    return float(np.abs(first - second).sum() / 2)


def prior_bias(scores: Floats) -> float:
    """Distance from uniform of the mean option probability after some inputs.

    Args:
        scores: [inputs, options] nats, lower is better.
    """
    mean = softmax(-scores, axis=1).mean(axis=0)
    return distance(mean, np.full(len(mean), 1 / len(mean)))


def posterior_bias(scores: Floats, gold: NDArray[np.int64]) -> float:
    """Distance of the mean option probability from the share of each option among the right answers.

    Args:
        scores: [n, options] of test rows, nats, lower is better.
        gold: [n] place of the right one.
    """
    shares = np.bincount(gold, minlength=scores.shape[1]) / len(gold)
    return distance(softmax(-scores, axis=1).mean(axis=0), shares)


def tie_share(scores: Floats) -> float:
    """Share of rows [n, options] whose two best options have the same score, so that their order decides."""
    best = np.sort(scores, axis=1)[:, :2]
    return float((best[:, 1] - best[:, 0] <= _TIE).mean())


def agreement(answers: Sequence[Sequence[str]]) -> float | None:
    """Chance that two different rows of `answers` [draws][n] hold the same answer at a place; None of a single draw."""
    draws = len(answers)
    if draws < 2:
        return None
    codes = np.unique(np.array(answers, dtype=np.str_), return_inverse=True)[1].reshape(draws, -1)
    same = [(codes[i] == codes[j]).mean() for i in range(draws) for j in range(i)]
    return float(np.mean(same))


def slope(places: Sequence[float], values: Sequence[float]) -> float | None:
    """Least-squares slope of values over places; None where there are no two different places."""
    x, y = np.array(places), np.array(values)
    spread = ((x - x.mean()) ** 2).sum()
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else None
