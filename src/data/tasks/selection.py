"""Which demonstrations a prompt shows, in which order, and with which labels: the demonstration lab.

Pure functions of examples, numbers and a generator. Strategies choose from a pool; changes then alter what
was chosen (order, labels, shown parts). Sources: Liu et al. 2022 (nearest neighbours), Lu et al. 2022 (order),
Min et al. 2022 (labels and shown parts), Min et al. NAACL 2022 (random English words).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count, islice
from math import factorial

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.data.task import Example

Floats = NDArray[np.floating]


def choose_random(pool: Sequence[Example], k: int, generator: np.random.Generator) -> tuple[Example, ...]:
    """`k` examples without replacement, all equally likely.

    Raises:
        DataError: fewer than `k` examples.
    """
    _check_size(pool, k)
    return tuple(pool[index] for index in generator.permutation(len(pool))[:k])


def choose_balanced(pool: Sequence[Example], k: int, generator: np.random.Generator) -> tuple[Example, ...]:
    """`k` examples whose label counts differ by one at most, as far as the pool has them; order is random.

    Raises:
        DataError: fewer than `k` examples.
    """
    _check_size(pool, k)
    shuffled = [pool[index] for index in generator.permutation(len(pool))]
    queues: dict[str, list[Example]] = {}
    for example in shuffled:
        queues.setdefault(example.output, []).append(example)
    chosen: list[Example] = []
    while len(chosen) < k:
        for queue in queues.values():
            if queue and len(chosen) < k:
                chosen.append(queue.pop())
    return tuple(chosen[index] for index in generator.permutation(k))


def choose_fixed(pool: Sequence[Example], indices: Sequence[int]) -> tuple[Example, ...]:
    """The examples at these places of the pool, in this order.

    Raises:
        DataError: a place that the pool does not have.
    """
    for index in indices:
        if not 0 <= index < len(pool):
            raise DataError(
                "selection.indices",
                f"no example {index} in a pool of {len(pool)}",
                f"use numbers from 0 to {len(pool) - 1}",
            )
    return tuple(pool[index] for index in indices)


def nearest(queries: Floats, pool: Floats, k: int) -> NDArray[np.int64]:
    """Places of the `k` pool vectors most similar to each query, the most similar one last.

    The last demonstration stands next to the test input. Equal similarities go to the lower place.

    Args:
        queries: [n, d] embeddings of the test inputs.
        pool: [m, d] embeddings of the pool.
        k: how many.

    Returns:
        [n, k] places.

    Raises:
        DataError: fewer than `k` pool vectors.
    """
    if k > len(pool):
        raise DataError(
            "k", f"the pool holds {len(pool)} examples, k={k} asked", f"set k={len(pool)} or less"
        )
    similarity = unit(queries) @ unit(pool).T
    best_first = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return best_first[:, ::-1].astype(np.int64)


def reorder(demonstrations: Sequence[Example], order: int) -> tuple[Example, ...]:
    """The demonstrations in order number `order`, from 0 (as they are) to k! - 1; see `permutation`."""
    return tuple(demonstrations[place] for place in permutation(len(demonstrations), order))


@lru_cache(maxsize=256)
def permutation(k: int, order: int) -> tuple[int, ...]:
    """Permutation number `order` of `k` places, all k! different: their numbers are those of their first appearance.

    The first is the identity, then come numpy's permutations of the seeds 1, 2, ..., without those that came before.
    (Seed 1 gives the identity for k <= 4.) Numbers from k! on begin anew.
    """
    return next(islice(_distinct_permutations(k), order % factorial(k), None))


def _distinct_permutations(k: int) -> Iterator[tuple[int, ...]]:
    seen = {tuple(range(k))}
    yield tuple(range(k))
    for seed in count(1):
        drawn = tuple(np.random.default_rng(seed).permutation(k).tolist())
        if drawn not in seen:
            seen.add(drawn)
            yield drawn


def add_label_noise(
    demonstrations: Sequence[Example], share: float, generator: np.random.Generator
) -> tuple[Example, ...]:
    """Give `share` of the demonstrations, rounded, a wrong option instead of the gold one.

    Args:
        demonstrations: with options.
        share: 0 (all right) to 1 (all wrong).
        generator: chooses which, and the wrong options.

    Raises:
        DataError: an example that has no wrong option.
    """
    wrong = set(generator.permutation(len(demonstrations))[: round(share * len(demonstrations))].tolist())
    return tuple(
        replace(example, output=_wrong_option(example, generator)) if place in wrong else example
        for place, example in enumerate(demonstrations)
    )


def flip_labels(demonstrations: Sequence[Example]) -> tuple[Example, ...]:
    """Every gold answer becomes the next option in the sorted list, the last becomes the first.

    All demonstrations of a label get the same wrong label, so a consistent wrong mapping is shown.
    """
    flipped: list[Example] = []
    for example in demonstrations:
        options = sorted(set(example.options) | {example.output})
        after = options[(options.index(example.output) + 1) % len(options)]
        flipped.append(replace(example, output=after))
    return tuple(flipped)


def labels_only(demonstrations: Sequence[Example]) -> tuple[Example, ...]:
    """Demonstrations without their inputs."""
    return tuple(replace(example, input="") for example in demonstrations)


def inputs_only(demonstrations: Sequence[Example]) -> tuple[Example, ...]:
    """Demonstrations without their labels; an empty output means that the prompt shows no label at all."""
    return tuple(replace(example, output="") for example in demonstrations)


def word_map(labels: Sequence[str], words: Sequence[str], generator: np.random.Generator) -> dict[str, str]:
    """A random word for each label, no word twice.

    The released code draws with replacement, so that two labels can get one word and become the same option.

    Raises:
        DataError: fewer words than labels.
    """
    if len(words) < len(labels):
        raise DataError(
            "selection.labels", f"{len(labels)} labels, {len(words)} words", "use a longer word list"
        )
    places = generator.choice(len(words), size=len(labels), replace=False)
    return {label: words[int(place)] for label, place in zip(sorted(labels), places, strict=True)}


def rename_labels(examples: Sequence[Example], names: Mapping[str, str]) -> tuple[Example, ...]:
    """Outputs and options under other names."""
    return tuple(
        replace(
            example,
            output=names[example.output],
            options=tuple(names[option] for option in example.options),
        )
        for example in examples
    )


def unit(vectors: Floats) -> Floats:
    """Vectors [n, d] of length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _wrong_option(example: Example, generator: np.random.Generator) -> str:
    others = [option for option in example.options if option != example.output]
    if not others:
        raise DataError(
            example.task,
            f"{example.output!r} is its only option, so no label is wrong",
            "set selection.label_noise=0",
        )
    return others[int(generator.integers(len(others)))]


def _check_size(pool: Sequence[Example], k: int) -> None:
    if k > len(pool):
        task = pool[0].task if pool else "the task"
        raise DataError(
            "k", f"{task!r} has a pool of {len(pool)} examples, k={k} asked", f"set k={len(pool)} or less"
        )
