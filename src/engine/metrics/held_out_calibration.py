"""What is fitted on development rows and judged on others: a temperature, and conformal sets of options.

Temperature (Guo et al. 2017): probabilities are softmax(-score / T), T minimizes the NLL of development rows. It moves no
ranking. Conformal sets (split conformal: Vovk et al. 2005; the score of Sadinle et al. 2019): an option is in the set when
1 - p does not exceed the ceil((n + 1) c)-th smallest 1 - p(gold) of n development rows. Where these and the test rows are
exchangeable, the set holds the right option with a chance of at least c, and of at most c + 1 / (n + 1) without ties.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from metashot.engine.metrics.classification import Floats

_LOG_RANGE = (math.log(1e-2), math.log(1e3))


def fit_temperature(scores: Floats, gold: NDArray[np.int64]) -> float:
    """The temperature, 0.01 to 1000, that minimizes the NLL of development rows.

    Args:
        scores: [n, options] by which they were ranked, nats, lower is better; inf where an example has fewer options.
        gold: [n] place of the right one.
    """
    rows = np.arange(len(gold))

    def nll(log_temperature: float) -> float:
        return float(-log_softmax(-scores / math.exp(log_temperature), axis=1)[rows, gold].mean())

    return float(math.exp(float(minimize_scalar(nll, bounds=_LOG_RANGE, method="bounded").x)))  # pyright: ignore[reportAttributeAccessIssue]


def conformal_threshold(scores: Floats, gold: NDArray[np.int64], coverage: float) -> float:
    """The largest 1 - p of options that a set of this coverage holds; inf where so few rows promise it for all options only.

    Args:
        scores: [n, options] of development rows, as above.
        gold: [n] place of the right one.
        coverage: c, wanted chance that the right option is in the set, 0..1.
    """
    strangeness = 1 - softmax(-scores, axis=1)[np.arange(len(gold)), gold]
    rank = math.ceil((len(gold) + 1) * coverage - 1e-9)
    return float(np.sort(strangeness)[rank - 1]) if rank <= len(gold) else math.inf


def conformal_sets(scores: Floats, threshold: float) -> NDArray[np.bool_]:
    """[n, options] whether an option is in its example's set; never one that the example does not have."""
    return (1 - softmax(-scores, axis=1) <= threshold) & np.isfinite(scores)
