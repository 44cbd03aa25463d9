"""Clusters as input pseudo-tokens: vectors in the language model's own embedding space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metashot.base.errors import DataError
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.backbone import input_embeddings
from metashot.metaprompt.clusters.store import ClusterStore

INPUT_EMBEDDINGS, CENTERED_EMBEDDINGS = "input_embeddings", "centered_embeddings"
_SENTENCES_PER_CLUSTER = 256


def cluster_embeddings(
    store: ClusterStore, language_model: LanguageModel, seed: int, *, centered: bool = False
) -> Tensor:
    """Mean input embedding of each cluster's sentences, rescaled to the vocabulary's mean norm: [clusters, d].

    Args:
        store: the clusters; at most 256 sentences of each are read.
        language_model: its input embeddings.
        seed: of the choice of sentences.
        centered: subtract the mean over clusters first. Frequent words make all means alike (cosine 0.93 between 40
            clusters of Wikipedia text for SmolLM2), and what is left tells the clusters apart.
    """
    table = input_embeddings(language_model).detach().float().cpu()
    norm = table.norm(dim=1).mean()
    generator = np.random.default_rng([seed, 4])
    rows: list[Tensor] = []
    for cluster in range(store.count):
        members = np.flatnonzero(np.asarray(store.assignment) == cluster)
        chosen = generator.permutation(members)[:_SENTENCES_PER_CLUSTER]
        texts = [store.sentences[int(index)] for index in chosen]
        ids = language_model.tokenizer(texts, add_special_tokens=False)["input_ids"]
        means = [table[torch.tensor(row)].mean(dim=0) for row in ids if len(row)]
        rows.append(torch.stack(means).mean(dim=0))
    centres = torch.stack(rows)
    if centered:
        centres = centres - centres.mean(dim=0)
    return centres / centres.norm(dim=1, keepdim=True).clamp_min(1e-12) * norm


def load_cluster_vectors(path: Path, clusters: int, width: int) -> Tensor:
    """Given cluster vectors (.npy), used as they are: [clusters, d], as the released code does.

    Raises:
        DataError: missing or of another shape.
    """
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), f"no readable .npy array: {error}", "give a float array [clusters, d]"
        ) from error
    if vectors.shape != (clusters, width):
        raise DataError(
            str(path),
            f"shape {vectors.shape}, but {clusters} clusters of width {width} are needed",
            "give vectors in the model's embedding space, or set supmer.pseudo_tokens=input_embeddings",
        )
    return torch.from_numpy(np.asarray(vectors, dtype=np.float32))
