"""Which rows become demonstrations: MetaICL's seeded k-shot selection, bit for bit.

Source: the released preprocessing code (docs/methods.md, the k-shot protocol). It shuffles with numpy's
legacy generator, whose stream numpy has frozen, so these indices are the same with every numpy version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metashot.base.errors import DataError

TARGET_K = 16
"""Demonstrations per target task in the published results."""
TARGET_SEEDS = (100, 13, 21, 42, 87)
"""Demonstration seeds of the published results, in the order in which they were averaged."""
POOL_K = 16384
"""Most examples that a meta-training task contributes."""
POOL_SEED = 100
"""The only seed with which meta-training pools are made."""
CUT_SEED = 42
"""Seed of the train/test cut that some tasks make themselves, before any k-shot selection."""


@dataclass(frozen=True, slots=True)
class KShotSplit:
    """Indices into the list of finished training examples, in the order in which they are written.

    Attributes:
        train: the first k indices of the shuffled list, fewer if the list is shorter.
        dev: the next k, fewer or none if the list is shorter.
    """

    train: list[int]
    dev: list[int]


def legacy_generator(seed: int) -> np.random.RandomState:
    """Numpy's legacy MT19937 generator, seeded the way `np.random.seed(seed)` seeds the global one."""
    return np.random.RandomState(seed)


def k_shot_split(n: int, k: int = TARGET_K, seed: int = POOL_SEED) -> KShotSplit:
    """Choose k training and k development rows out of n, without balancing labels.

    Args:
        n: number of training examples left after filtering.
        k: examples per part.
        seed: selection seed.

    Returns:
        The chosen indices; with fewer than 2k rows `dev` is short or empty, with fewer than k rows
        `train` holds them all, as in the original.

    Raises:
        DataError: n or k is negative, or the seed is outside 0..2**32-1.
    """
    if n < 0 or k < 0:
        raise DataError("k", f"cannot choose k={k} of n={n} rows", "give numbers from 0 up")
    if not 0 <= seed < 2**32:
        raise DataError("seeds", f"seed {seed} is outside 0..4294967295", "give a seed in that range")
    order = legacy_generator(seed).permutation(n)
    return KShotSplit(train=order[:k].tolist(), dev=order[k : 2 * k].tolist())
