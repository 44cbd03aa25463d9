"""k-means over sentence embeddings, and a report that lets a person judge the clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.base.extras import import_extra
from metashot.base.value_kinds import Positive, Seed
from metashot.data.text.sentences import SentenceStore

_MINI_BATCH_ABOVE = 200_000


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """How sentences are clustered; `corpus.clusters` in YAML."""

    count: Positive
    """Number of clusters (domains); 250 in the published set-up."""
    min_sentences: Positive
    """Fewest sentences per cluster on average; a `count` that leaves fewer is refused."""
    iterations: Positive
    """Most iterations of k-means."""
    restarts: Positive
    """K-means runs, of which the best is kept."""
    seed: Seed
    """Seed of the k-means start."""
    silhouette_sample: Positive
    """Sentences in the quality sample."""
    nearest: Positive
    """Sentences shown for each cluster."""


@dataclass(frozen=True, slots=True)
class Clustering:
    """Assignment of each sentence, [n], and the centroids, [count, e]."""

    assignment: NDArray[np.int32]
    centroids: NDArray[np.float32]


def cluster_vectors(vectors: NDArray[np.float32], spec: ClusterConfig) -> Clustering:
    """k-means (mini-batch above 200,000 rows).

    Raises:
        DataError: too few sentences for the clusters asked, or an empty cluster.
    """
    import_extra("sklearn", "clusters")
    from sklearn.cluster import KMeans, MiniBatchKMeans

    needed = spec.count * max(1, spec.min_sentences)
    if len(vectors) < needed:
        raise DataError(
            "corpus.clusters.count",
            f"{len(vectors)} sentences are too few for {spec.count} clusters of {spec.min_sentences}"
            f" sentences ({needed} needed)",
            f"set corpus.clusters.count={max(1, len(vectors) // max(1, spec.min_sentences))} or less,"
            " or give more text",
        )
    arguments: dict[str, Any] = {
        "n_clusters": spec.count,
        "max_iter": spec.iterations,
        "n_init": spec.restarts,
        "random_state": spec.seed,
    }
    big = len(vectors) > _MINI_BATCH_ABOVE
    model = MiniBatchKMeans(**arguments, batch_size=8192) if big else KMeans(**arguments)
    assignment = np.asarray(model.fit_predict(vectors), dtype=np.int32)
    sizes = np.bincount(assignment, minlength=spec.count)
    if (sizes == 0).any():
        raise DataError(
            "corpus.clusters.count",
            f"cluster {int(np.argmin(sizes))} is empty",
            "set a smaller corpus.clusters.count or another corpus.clusters.seed",
        )
    return Clustering(assignment, np.asarray(model.cluster_centers_, dtype=np.float32))


def quality_report(
    vectors: NDArray[np.float32], clustering: Clustering, sentences: SentenceStore, spec: ClusterConfig
) -> dict[str, Any]:
    """Sizes, the sentences nearest to each centroid, and the silhouette of a random sample."""
    import_extra("sklearn", "clusters")
    from sklearn.metrics import silhouette_score

    generator = np.random.default_rng(spec.seed)
    sample = generator.permutation(len(vectors))[: spec.silhouette_sample]
    labels = clustering.assignment[sample]
    score = (
        float(silhouette_score(np.asarray(vectors[sample]), labels, metric="cosine"))
        if 1 < len(set(labels.tolist())) < len(sample)
        else None
    )
    sizes = np.bincount(clustering.assignment, minlength=spec.count)
    return {
        "sentences": len(vectors),
        "documents": sentences.documents,
        "clusters": spec.count,
        "size_min": int(sizes.min()),
        "size_median": float(np.median(sizes)),
        "size_max": int(sizes.max()),
        "silhouette_cosine": score,
        "silhouette_sample": len(sample),
        "cluster": [
            {"id": cluster, "size": int(sizes[cluster]), "nearest": nearest}
            for cluster, nearest in enumerate(_nearest(vectors, clustering, sentences, spec.nearest))
        ],
    }


def _nearest(
    vectors: NDArray[np.float32], clustering: Clustering, sentences: SentenceStore, count: int
) -> list[list[str]]:
    shown: list[list[str]] = []
    for cluster, centroid in enumerate(clustering.centroids):
        members = np.flatnonzero(clustering.assignment == cluster)
        distance = ((vectors[members] - centroid) ** 2).sum(axis=1)
        shown.append([sentences[int(members[index])] for index in np.argsort(distance)[:count]])
    return shown
