"""Families of rules over made-up words and numbers, for procedural few-shot tasks.

A family fixes a rule from a generator (which words matter, where the threshold lies) and then draws examples of it.
The families of meta-training and of target tasks are disjoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Generator = np.random.Generator

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
CATEGORIES = 8
WORDS_PER_CATEGORY = 4
LABEL_WORDS = 16
NAMES = 16
PLACES = 16
LARGEST_NUMBER = 20


def made_up_words() -> tuple[str, ...]:
    """All two-syllable words, in a fixed shuffled order: the first for categories, the next for labels."""
    syllables = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]
    words = [first + second for first in syllables for second in syllables if first != second]
    order = np.random.default_rng(7).permutation(len(words))
    return tuple(
        words[index] for index in order[: CATEGORIES * WORDS_PER_CATEGORY + LABEL_WORDS + NAMES + PLACES]
    )


_WORDS = made_up_words()
_CATEGORY_WORDS = tuple(
    _WORDS[start : start + WORDS_PER_CATEGORY]
    for start in range(0, CATEGORIES * WORDS_PER_CATEGORY, WORDS_PER_CATEGORY)
)
LABELS = _WORDS[CATEGORIES * WORDS_PER_CATEGORY :][:LABEL_WORDS]
_NAMES = _WORDS[-NAMES - PLACES : -PLACES]
_PLACES = _WORDS[-PLACES:]


def vocabulary() -> list[str]:
    """Every word that synthetic text can hold (for a word-level tokenizer)."""
    return [*_WORDS, *(str(number) for number in range(LARGEST_NUMBER + 1))]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard a family's tasks are.

    Attributes:
        labels: label words of a task, where the rule allows more than two.
        distractors: words of no meaning in each input.
        keys: distinct inputs that a lookup task assigns.
    """

    labels: int
    distractors: int
    keys: int


DifficultyName = Literal["easy", "medium", "hard"]
DIFFICULTIES: Mapping[DifficultyName, Difficulty] = {
    "easy": Difficulty(labels=2, distractors=0, keys=2),
    "medium": Difficulty(labels=3, distractors=1, keys=6),
    "hard": Difficulty(labels=4, distractors=2, keys=12),
}

Draw = Callable[[Generator], tuple[str, int]]
"""One input text and the number of its label."""
Rule = Callable[[Generator, Difficulty], tuple[Draw, int]]
"""Fix a task's rule: a draw of examples, and how many labels it has."""


def _word(rng: Generator, category: int) -> str:
    return _CATEGORY_WORDS[category][int(rng.integers(WORDS_PER_CATEGORY))]


def _any_word(rng: Generator) -> str:
    return _word(rng, int(rng.integers(CATEGORIES)))


def _with_distractors(rng: Generator, words: list[str], count: int, *, key_first: bool) -> str:
    extra = [_any_word(rng) for _ in range(count)]
    return " ".join([*words, *extra] if key_first else [*extra, *words])


def _category(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """The label is the category of the first word."""
    chosen = rng.choice(CATEGORIES, size=difficulty.labels, replace=False)

    def draw(rng: Generator) -> tuple[str, int]:
        label = int(rng.integers(len(chosen)))
        words = [_word(rng, int(chosen[label]))]
        return _with_distractors(rng, words, difficulty.distractors, key_first=True), label

    return draw, len(chosen)


def _category_last(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """The label is the category of the last word."""
    chosen = rng.choice(CATEGORIES, size=difficulty.labels, replace=False)

    def draw(rng: Generator) -> tuple[str, int]:
        label = int(rng.integers(len(chosen)))
        words = [_word(rng, int(chosen[label]))]
        return _with_distractors(rng, words, difficulty.distractors + 1, key_first=False), label

    return draw, len(chosen)


def _keyed(rng: Generator, difficulty: Difficulty, *, key_first: bool) -> tuple[Draw, int]:
    """Each of a few words has a label of its own choosing, whatever its category."""
    pool = [word for words in _CATEGORY_WORDS for word in words]
    keys = [pool[index] for index in rng.choice(len(pool), size=difficulty.keys, replace=False)]
    labels = rng.permutation(np.arange(difficulty.keys) % difficulty.labels)

    def draw(rng: Generator) -> tuple[str, int]:
        index = int(rng.integers(len(keys)))
        text = _with_distractors(rng, [keys[index]], difficulty.distractors + 1, key_first=key_first)
        return text, int(labels[index])

    return draw, difficulty.labels


def _keyed_first(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """A lookup by the first word."""
    return _keyed(rng, difficulty, key_first=True)


def _keyed_last(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """A lookup by the last word."""
    return _keyed(rng, difficulty, key_first=False)


def _word_lookup(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """A few words have a label each."""
    return _lookup_in([word for words in _CATEGORY_WORDS for word in words], rng, difficulty)


def _number(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """A few numbers have a label each."""
    return _lookup_in([str(number) for number in range(LARGEST_NUMBER + 1)], rng, difficulty)


def _name(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """A few names, words of no other use, have a label each."""
    return _lookup_in(_NAMES, rng, difficulty)


def _place(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """A few places, words of no other use, have a label each."""
    return _lookup_in(_PLACES, rng, difficulty)


def _lookup_in(pool: Sequence[str], rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    keys = [pool[int(index)] for index in rng.choice(len(pool), size=difficulty.keys, replace=False)]
    return _labelled(keys, rng, difficulty)


def _labelled(keys: Sequence[str], rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """Each key is an input and has a label."""
    labels = rng.permutation(np.arange(len(keys)) % difficulty.labels)

    def draw(rng: Generator) -> tuple[str, int]:
        index = int(rng.integers(len(keys)))
        return keys[index], int(labels[index])

    return draw, difficulty.labels


def _lookup(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """Whole inputs of two words are looked up."""
    keys = [f"{_any_word(rng)} {_any_word(rng)}" for _ in range(difficulty.keys)]
    return _labelled(keys, rng, difficulty)


def _threshold(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """Whether a number reaches the task's threshold."""
    limit = int(rng.integers(6, LARGEST_NUMBER - 5))

    def draw(rng: Generator) -> tuple[str, int]:
        label = int(rng.integers(2))
        number = rng.integers(limit, LARGEST_NUMBER + 1) if label else rng.integers(limit)
        return _with_distractors(rng, [str(number)], difficulty.distractors, key_first=True), label

    return draw, 2


def _compare(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """Whether the first of two numbers is the larger one."""

    def draw(rng: Generator) -> tuple[str, int]:
        small, large = sorted(int(n) for n in rng.choice(LARGEST_NUMBER + 1, size=2, replace=False))
        label = int(rng.integers(2))
        text = f"{large} {small}" if label else f"{small} {large}"
        return _with_distractors(rng, [text], difficulty.distractors, key_first=True), label

    return draw, 2


def _same(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """Whether both words are of one category."""

    def draw(rng: Generator) -> tuple[str, int]:
        label = int(rng.integers(2))
        first, other = (int(category) for category in rng.choice(CATEGORIES, size=2, replace=False))
        words = [_word(rng, first), _word(rng, first if label else other)]
        return _with_distractors(rng, words, difficulty.distractors, key_first=True), label

    return draw, 2


def _contains(rng: Generator, difficulty: Difficulty) -> tuple[Draw, int]:
    """Which of the task's marker words stands anywhere in the input."""
    pool = [word for words in _CATEGORY_WORDS for word in words]
    markers = [pool[index] for index in rng.choice(len(pool), size=difficulty.labels, replace=False)]

    def draw(rng: Generator) -> tuple[str, int]:
        label = int(rng.integers(len(markers)))
        words = [_any_word(rng) for _ in range(difficulty.distractors + 1)]
        words.insert(int(rng.integers(len(words) + 1)), markers[label])
        return " ".join(words), label

    return draw, len(markers)


TRAIN_FAMILIES: Mapping[str, Rule] = {
    "word": _word_lookup,
    "number": _number,
    "category": _category,
    "keyed_first": _keyed_first,
    "keyed_last": _keyed_last,
    "compare": _compare,
    "threshold": _threshold,
    "same": _same,
}
TARGET_FAMILIES: Mapping[str, Rule] = {
    "lookup": _lookup,
    "name": _name,
    "place": _place,
    "category_last": _category_last,
    "contains": _contains,
}
