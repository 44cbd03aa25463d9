"""What stands as labels in a training sequence: its own, random ones, words in their place, or none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np

from metashot.base.errors import DataError
from metashot.base.extras import import_extra
from metashot.data.task import Example


class DemonstrationLabels(StrEnum):
    """What stands as the label of a demonstration while training."""

    GOLD = "gold"
    """Its own label."""
    RANDOM = "random"
    """A uniformly drawn option (Min et al. 2022); the query keeps its own."""
    NONE = "none"
    """No label and no separator for it; the query keeps its own."""
    RANDOM_WORDS = "random_words"
    """Every label becomes a random English word, drawn anew for each sequence and shared with the query."""


@dataclass(frozen=True, slots=True)
class SequenceLabels:
    """What stands as labels in a sequence.

    With options (negative, positive) replaced by the words (apple, river), an example whose output is positive shows
    river in `own`, and its only wrong option reads apple.

    Attributes:
        examples: demonstrations, then the query.
        own: the label that replaces each example's own, or None.
        words: option -> the word in its place.
    """

    examples: list[Example]
    own: list[str | None]
    words: dict[str, str]

    def others(self, at: int) -> list[str]:
        """The wrong options at a place, as they stand there; without those that read like the right one."""
        example = self.examples[at]
        shown = [self.words.get(option, option) for option in example.options]
        gold = self.own[at] or example.output
        return [label for label in dict.fromkeys(shown) if label != gold]


def sequence_labels(
    examples: list[Example], index: int, kind: DemonstrationLabels, replaced_share: float, seed: int
) -> SequenceLabels:
    """The labels of one sequence.

    Args:
        examples: demonstrations, then the query.
        index: number of the episode, which decides with `seed` what is drawn.
        kind: the ablation.
        replaced_share: share of the sequences whose labels become random words; below 1, tasks that have no common
            options keep their labels.
        seed: of the draws.

    Raises:
        DataError: a task that the ablation cannot serve.
    """
    rng = np.random.default_rng([seed, 3, index])
    unchanged = SequenceLabels(examples, [None] * len(examples), {})
    if kind is DemonstrationLabels.RANDOM:
        demonstrations = examples[:-1]
        _require_options(demonstrations, kind)
        own = [str(example.options[int(rng.integers(len(example.options)))]) for example in demonstrations]
        return SequenceLabels(examples, [*own, None], {})
    if kind is not DemonstrationLabels.RANDOM_WORDS:
        return unchanged
    options = examples[0].options
    common = all(example.options and set(example.options) == set(options) for example in examples)
    if replaced_share < 1:
        chance = np.random.default_rng([seed, 6, index]).random()
        if chance >= replaced_share or not common:
            return unchanged
    _require_options(examples, kind)
    if not common:
        raise DataError(
            examples[0].task,
            "its examples have different options, so labels cannot be replaced by words",
            "leave the task out, or use trainer.demonstration_labels=gold",
        )
    words = english_words()
    drawn = {option: words[int(rng.integers(len(words)))] for option in options}
    return SequenceLabels(examples, [drawn[example.output] for example in examples], drawn)


def _require_options(examples: list[Example], labels: DemonstrationLabels) -> None:
    for example in examples:
        if not example.options:
            raise DataError(
                example.task,
                f"is free-form (no options), which trainer.demonstration_labels={labels.value} cannot serve",
                "leave the task out, or use trainer.demonstration_labels=gold",
            )


@cache
def english_words() -> tuple[str, ...]:
    """Lower-case English words, sorted.

    The released list of 61,569 words is in no published release of the package; its GCIDE list of 114,029 stands
    in. So the rule of the paper's Table 13 is kept, and the words it drew are not.

    Raises:
        ConfigError: the package is not installed.
    """
    package = import_extra("english_words", "trainer.demonstration_labels")
    return tuple(sorted(package.get_english_words_set(["gcide"], alpha=True, lower=True)))
