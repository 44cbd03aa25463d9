"""Do training tasks give away test examples? Equal inputs, and long word sequences in common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metashot.data.task import Example

NGRAM_WORDS = 13
"""Length at which a shared word sequence is no coincidence (the choice of the GPT-3 paper, appendix C)."""
_BASE = np.uint64(1_000_003)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What training tasks share with one target task.

    Attributes:
        task: the target.
        n: its test examples.
        exact: how many of them have an input that occurs in training, up to case and blanks.
        ngram: how many share a sequence of NGRAM_WORDS words with a training input.
        sources: training task to the number of test examples it touches, largest first.
    """

    task: str
    n: int
    exact: int
    ngram: int
    sources: tuple[tuple[str, int], ...]


def overlaps(
    train: Mapping[str, Iterable[Example]], test: Mapping[str, Sequence[Example]], n: int = NGRAM_WORDS
) -> list[Overlap]:
    """Compare every training input with every test input.

    The test side is indexed and the training side streamed, so memory grows with the test sets only.

    Args:
        train: training task to its examples.
        test: target task to its test examples.
        n: words per sequence.
    """
    index = _Index(test, n)
    for task, examples in train.items():
        for example in examples:
            index.look(task, example.input)
    return [index.result(task) for task in test]


class _Index:
    """Test inputs by text and by word sequence, and what was found of them."""

    def __init__(self, test: Mapping[str, Sequence[Example]], n: int) -> None:
        self._n = n
        self._vocabulary: dict[str, int] = {}
        self._sizes = {task: len(examples) for task, examples in test.items()}
        self._texts: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._sequences: dict[int, set[tuple[str, int]]] = defaultdict(set)
        for task, examples in test.items():
            for number, example in enumerate(examples):
                words = example.input.lower().split()
                self._texts[" ".join(words)].append((task, number))
                for code in self._codes(words, grow=True).tolist():
                    self._sequences[code].add((task, number))
        self._known = np.array(sorted(self._sequences), dtype=np.uint64)
        self._exact: dict[str, set[int]] = defaultdict(set)
        self._ngram: dict[str, set[int]] = defaultdict(set)
        self._sources: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))

    def look(self, source: str, text: str) -> None:
        """Note what one training input shares with the test inputs."""
        words = text.lower().split()
        for task, number in self._texts.get(" ".join(words), ()):
            self._exact[task].add(number)
            self._sources[task][source].add(number)
        codes = self._codes(words, grow=False)
        for code in codes[self._is_known(codes)].tolist():
            for task, number in self._sequences[code]:
                self._ngram[task].add(number)
                self._sources[task][source].add(number)

    def result(self, task: str) -> Overlap:
        """The findings for one target."""
        sources = Counter({source: len(found) for source, found in self._sources[task].items()})
        return Overlap(
            task,
            self._sizes[task],
            len(self._exact[task]),
            len(self._ngram[task]),
            tuple(sources.most_common()),
        )

    def _is_known(self, codes: np.ndarray) -> np.ndarray:
        if not len(self._known):
            return np.zeros(len(codes), dtype=bool)
        places = np.searchsorted(self._known, codes)
        return self._known[np.minimum(places, len(self._known) - 1)] == codes

    def _codes(self, words: Sequence[str], grow: bool) -> np.ndarray:
        """One 64-bit code per sequence of n words; words that no test input holds share the code 0."""
        if len(words) < self._n:
            return np.empty(0, dtype=np.uint64)
        if grow:
            numbers = [self._vocabulary.setdefault(word, len(self._vocabulary) + 1) for word in words]
        else:
            numbers = [self._vocabulary.get(word, 0) for word in words]
        values = np.array(numbers, dtype=np.uint64)
        n_sequences = len(words) - self._n + 1
        codes = np.zeros(n_sequences, dtype=np.uint64)
        for offset in range(self._n):
            codes = codes * _BASE + values[offset : offset + n_sequences]
        return codes
