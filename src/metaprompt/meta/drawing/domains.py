"""Clusters as domains of meta-tasks: train and held-out documents, and the two halves of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.metaprompt.clusters.store import ClusterStore

Split = Literal["meta_train", "meta_test"]
_PARTITION_TRIES = 100


@dataclass(frozen=True, slots=True)
class Domains:
    """The clusters of one split. Train and held-out tasks share no document.

    Attributes:
        store: sentences and clusters.
        split: which documents these are.
        document_of: document of each sentence of the store, [n].
        documents: documents of this split.
        members: for each cluster its sentences in this split.
        eligible: clusters that may serve as a domain: enough sentences, and documents enough to part them.
    """

    store: ClusterStore
    split: Split
    document_of: NDArray[np.int64]
    documents: NDArray[np.int64]
    members: tuple[NDArray[np.int64], ...]
    eligible: tuple[int, ...]


def split_domains(
    store: ClusterStore, *, held_out_fraction: float, min_sentences: int, seed: int
) -> dict[Split, Domains]:
    """Documents split into meta-train and meta-test, and the clusters of each.

    Args:
        store: sentences and clusters.
        held_out_fraction: share of the documents kept for held-out tasks.
        min_sentences: fewest sentences of an eligible cluster in meta-train; held-out tasks need a quarter of it.
        seed: of the split.

    Raises:
        DataError: a split has no eligible cluster (the numbers are said).
    """
    starts = np.asarray(store.sentences.starts)
    document_of = np.repeat(np.arange(store.sentences.documents), np.diff(starts))
    held_out = _held_out(document_of, np.asarray(store.assignment), held_out_fraction, seed)
    parts: dict[Split, NDArray[np.int64]] = {
        "meta_test": held_out,
        "meta_train": np.setdiff1d(np.arange(store.sentences.documents), held_out),
    }
    # Held-out documents are few, so a quarter is enough for them.
    fewest: dict[Split, int] = {"meta_train": min_sentences, "meta_test": max(4, min_sentences // 4)}
    return {
        split: _domains(store, split, document_of, documents, fewest[split])
        for split, documents in parts.items()
    }


def _held_out(
    document_of: NDArray[np.int64], assignment: NDArray[np.int32], fraction: float, seed: int
) -> NDArray[np.int64]:
    """A share of each cluster's documents (at least two where it has four), so that every domain is tested.

    A document counts for the cluster that most of its sentences belong to. With three clusters, sentences of the
    documents 0 0 0 1 1 in the clusters 2 2 0 1 1 make the pairs (document * 3 + cluster) 0, 2 and 4, found 1, 2 and 2
    times; ordered by document, then by count, each document's last pair names its majority: 2 % 3 and 4 % 3.
    """
    documents, clusters = int(document_of.max()) + 1, int(assignment.max()) + 1
    pairs, counts = np.unique(document_of * clusters + assignment, return_counts=True)
    order = np.lexsort((counts, pairs // clusters))
    last = np.flatnonzero(np.diff(pairs[order] // clusters, append=documents))
    majority = pairs[order][last] % clusters
    generator = np.random.default_rng([seed, 0])
    chosen: list[NDArray[np.int64]] = []
    for cluster in range(clusters):
        own = generator.permutation(np.flatnonzero(majority == cluster))
        share = max(2, round(fraction * len(own))) if len(own) >= 4 else 0
        chosen.append(own[:share])
    return np.sort(np.concatenate(chosen))


def _domains(
    store: ClusterStore,
    split: Split,
    document_of: NDArray[np.int64],
    documents: NDArray[np.int64],
    min_sentences: int,
) -> Domains:
    inside = np.zeros(store.sentences.documents, dtype=bool)
    inside[documents] = True
    chosen = np.flatnonzero(inside[document_of])
    labels = np.asarray(store.assignment)[chosen]
    members = tuple(chosen[labels == cluster] for cluster in range(store.count))
    eligible = tuple(
        cluster
        for cluster, rows in enumerate(members)
        if len(rows) >= min_sentences and _can_be_parted(document_of[rows])
    )
    if not eligible:
        of_rule = " (a quarter of it)" if split == "meta_test" else ""
        sizes = sorted((len(rows) for rows in members), reverse=True)
        raise DataError(
            "supmer.min_domain_sentences",
            f"no cluster has {min_sentences} {split} sentences{of_rule} in documents that make two halves"
            f" (the largest has {sizes[0]})",
            "give more text, fewer clusters, or a smaller supmer.min_domain_sentences",
        )
    return Domains(store, split, document_of, documents, members, eligible)


def _can_be_parted(documents: NDArray[np.int64]) -> bool:
    """Whether the documents of a cluster's sentences, dealt to two halves in turn, can give each two sentences.

    Four documents always can; of three the half with one document needs two sentences in it, of two both do.
    """
    sentences = np.unique(documents, return_counts=True)[1]
    if len(sentences) == 2:
        return bool(sentences.min() >= 2)
    return len(sentences) >= 4 or bool(len(sentences) == 3 and sentences.max() >= 2)


@dataclass(frozen=True, slots=True)
class Half:
    """What the support (or the query) of one task may use: the sentences of some documents.

    Attributes:
        domains: the split.
        allowed: True for documents that belong to this half, [documents of the store].
    """

    domains: Domains
    allowed: NDArray[np.bool_]

    def members(self, cluster: int) -> NDArray[np.int64]:
        """Sentences of `cluster` in this half."""
        rows = self.domains.members[cluster]
        return rows[self.allowed[self.domains.document_of[rows]]]

    def documents(self) -> NDArray[np.int64]:
        """Documents of this half."""
        documents = self.domains.documents
        return documents[self.allowed[documents]]


def task_halves(
    domains: Domains, clusters: tuple[int, ...], generator: np.random.Generator, *, shared: bool
) -> tuple[Half, Half]:
    """Support half and query half of a task: disjoint documents, each with two sentences of every cluster or more.

    Args:
        domains: the split.
        clusters: the task's own clusters.
        generator: source of the partition.
        shared: let both halves use everything (released behaviour: sentences may repeat).

    Raises:
        DataError: the clusters lie in too few documents to be parted.
    """
    everything = np.ones(len(domains.store.sentences.starts) - 1, dtype=bool)
    if shared:
        return Half(domains, everything), Half(domains, everything)
    for _ in range(_PARTITION_TRIES):
        side = generator.random(len(everything)) < 0.5
        for cluster in clusters:
            # Alternate over the cluster's own documents, so that neither half is starved.
            own = generator.permutation(np.unique(domains.document_of[domains.members[cluster]]))
            side[own] = np.arange(len(own)) % 2 == 0
        halves = Half(domains, side), Half(domains, ~side)
        if all(len(half.members(cluster)) >= 2 for half in halves for cluster in clusters):
            return halves
    raise DataError(
        "supmer.min_domain_sentences",
        f"clusters {list(clusters)} lie in too few documents to give support and query of their own",
        "raise supmer.min_domain_sentences or give more documents",
    )
