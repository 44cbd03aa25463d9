"""The five constructions: from domains to records (texts, options, label), before any tokenizer is seen.

Each function takes one half of a task and returns `count` records. Source: facts from PPT's builders (next-sentence
formats) and the authors' task classes (cluster formats).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.metaprompt.meta.drawing.domains import Half

ADJACENT, SAME_DOCUMENT, OTHER_DOCUMENT = 0, 1, 2
_TRIES = 50
"""Draws for one option before a corpus counts as too poor in different sentences."""


@dataclass(frozen=True, slots=True)
class Record:
    """One example before rendering.

    Attributes:
        slots: texts by slot name.
        options: option texts, or clusters as numbers.
        label: index of the right verbalizer.
    """

    slots: Mapping[str, str]
    options: tuple[str | int, ...]
    label: int


@dataclass(frozen=True, slots=True)
class RecordsWanted:
    """What a construction is asked for.

    Attributes:
        clusters: the task's own clusters (one, or `options` many for `cluster_choice`).
        count: records.
        options: options of a choice.
        repeats: a sentence may be paired with itself, and options may repeat (released behaviour).
    """

    clusters: tuple[int, ...]
    count: int
    options: int
    repeats: bool


Construction = Callable[[Half, RecordsWanted, np.random.Generator], list[Record]]


def cycle(generator: np.random.Generator, pool: NDArray[np.int64], count: int) -> list[int]:
    """`count` items of `pool` in random order, each used once before any is used again."""
    rounds = -(-count // len(pool))
    return np.concatenate([generator.permutation(pool) for _ in range(rounds)])[:count].tolist()


def next_sentence_pair(half: Half, wanted: RecordsWanted, generator: np.random.Generator) -> list[Record]:
    """nsp: an adjacent sentence, another one of the document, or one of another document, each with p = 1/3."""
    text = half.domains.store.sentences
    records: list[Record] = []
    for anchor in cycle(generator, half.members(wanted.clusters[0]), wanted.count):
        adjacent, same = _neighbours(half, anchor)
        kinds = [ADJACENT] * bool(adjacent) + [SAME_DOCUMENT] * bool(same) + [OTHER_DOCUMENT]
        label = int(generator.choice(kinds))
        if label == OTHER_DOCUMENT:
            partner = next(_other_documents(half, anchor, generator))
        else:
            partner = int(generator.choice(adjacent if label == ADJACENT else same))
        records.append(Record({"first": text[anchor], "second": text[partner]}, (), label))
    return records


def next_sentence_choice(half: Half, wanted: RecordsWanted, generator: np.random.Generator) -> list[Record]:
    """nss: one adjacent option, one of the same document, the others from other documents; the label is its place.

    A document without a further sentence gives its place to one more other document.
    """
    text = half.domains.store.sentences
    records: list[Record] = []
    for anchor in cycle(generator, half.members(wanted.clusters[0]), wanted.count):
        adjacent, same = _neighbours(half, anchor)
        right = text[int(generator.choice(adjacent))]
        taken = set[str]() if wanted.repeats else {text[anchor], right}
        near = [index for index in same if text[index] not in taken]
        wrong = [text[int(generator.choice(near))]] if near else []
        taken.update([] if wanted.repeats else wrong)
        others = (text[index] for index in _other_documents(half, anchor, generator))
        wrong += _distinct(others, wanted.options - 1 - len(wrong), taken, wanted)
        records.append(_choice(text[anchor], right, wrong, None, generator))
    return records


def same_cluster_pair(half: Half, wanted: RecordsWanted, generator: np.random.Generator) -> list[Record]:
    """scsp: half of the records pair two sentences of the cluster (label 0), half one of it and one of another."""
    text, cluster = half.domains.store.sentences, wanted.clusters[0]
    positive = wanted.count // 2
    anchors = cycle(generator, half.members(cluster), wanted.count)
    records: list[Record] = []
    for index, anchor in enumerate(anchors):
        same = index < positive
        partner = _member(half, cluster, anchor, generator, repeats=wanted.repeats) if same else None
        partner = _outsider(half, cluster, generator) if partner is None else partner
        records.append(Record({"first": text[anchor], "second": text[partner]}, (), 0 if same else 1))
    return _shuffled(records, generator)


def same_cluster_choice(half: Half, wanted: RecordsWanted, generator: np.random.Generator) -> list[Record]:
    """scss: one option of the anchor's cluster, the others of other clusters; right places are balanced."""
    text, cluster = half.domains.store.sentences, wanted.clusters[0]
    records: list[Record] = []
    for index, anchor in enumerate(cycle(generator, half.members(cluster), wanted.count)):
        right = text[_member(half, cluster, anchor, generator, repeats=wanted.repeats)]
        taken = set[str]() if wanted.repeats else {text[anchor], right}
        outside = (text[_outsider(half, cluster, generator)] for _ in repeat(None))
        wrong = _distinct(outside, wanted.options - 1, taken, wanted)
        records.append(_choice(text[anchor], right, wrong, index % wanted.options, generator))
    return _shuffled(records, generator)


def cluster_choice(half: Half, wanted: RecordsWanted, generator: np.random.Generator) -> list[Record]:
    """scc: which of the task's clusters does the sentence belong to; classes are balanced."""
    text = half.domains.store.sentences
    share = -(-wanted.count // len(wanted.clusters))
    records = [
        Record({"anchor": text[sentence]}, wanted.clusters, label)
        for label, cluster in enumerate(wanted.clusters)
        for sentence in cycle(generator, half.members(cluster), share)
    ]
    return _shuffled(records, generator)[: wanted.count]


DRAWS: dict[str, Construction] = {
    "next_sentence_pair": next_sentence_pair,
    "next_sentence_choice": next_sentence_choice,
    "same_cluster_pair": same_cluster_pair,
    "same_cluster_choice": same_cluster_choice,
    "cluster_choice": cluster_choice,
}


def _choice(
    anchor: str, right: str, wrong: Sequence[str], place: int | None, generator: np.random.Generator
) -> Record:
    place = int(generator.integers(len(wrong) + 1)) if place is None else place
    shuffled: list[str] = [wrong[int(index)] for index in generator.permutation(len(wrong))]
    return Record({"anchor": anchor}, (*shuffled[:place], right, *shuffled[place:]), place)


def _shuffled(records: list[Record], generator: np.random.Generator) -> list[Record]:
    return [records[index] for index in generator.permutation(len(records))]


def _neighbours(half: Half, anchor: int) -> tuple[list[int], list[int]]:
    """Adjacent sentences, and the further ones of the same document."""
    document = half.domains.document_of[anchor]
    start, stop = half.domains.store.sentences.starts[document : document + 2]
    adjacent = [index for index in (anchor - 1, anchor + 1) if start <= index < stop]
    return adjacent, [index for index in range(start, stop) if abs(index - anchor) > 1]


def _distinct(texts: Iterator[str], count: int, taken: set[str], wanted: RecordsWanted) -> list[str]:
    """The first `count` of `texts` that differ and are not in `taken`; the first of all where `wanted.repeats`.

    Raises:
        DataError: the corpus holds too few different sentences.
    """
    found: list[str] = []
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        text = next(texts)
        if wanted.repeats or text not in taken:
            found.append(text)
            taken.add(text)
    if len(found) < count:
        raise DataError(
            "corpus",
            f"too few different sentences outside cluster {wanted.clusters[0]} for {wanted.options} options",
            "give more text, or leave nss and scss out of supmer.formats",
        )
    return found


def _other_documents(half: Half, anchor: int, generator: np.random.Generator) -> Iterator[int]:
    """Random sentences from other documents without end, each document once before any comes again."""
    documents = half.documents()
    documents = documents[documents != half.domains.document_of[anchor]]
    starts = half.domains.store.sentences.starts
    while True:
        for document in generator.permutation(documents):
            yield int(generator.integers(starts[document], starts[document + 1]))


def _member(half: Half, cluster: int, anchor: int, generator: np.random.Generator, *, repeats: bool) -> int:
    pool = half.members(cluster)
    return int(generator.choice(pool if repeats else pool[pool != anchor]))


def _outsider(half: Half, cluster: int, generator: np.random.Generator) -> int:
    """A random sentence of a random other cluster."""
    while True:
        other = int(generator.integers(half.domains.store.count - 1))
        pool = half.members(other + (other >= cluster))
        if len(pool):
            return int(generator.choice(pool))
