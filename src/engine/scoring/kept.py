"""Prefixes kept between calls: keys and values of what the requests of a call share, for the calls after it.

Nothing is kept of weights in half precision, whose products round in another way at another shape: there a call with
kept keys would not equal a call without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from metashot.engine.scoring.path import PathCache
from metashot.engine.scoring.request import Request
from metashot.engine.scoring.ropes import Regime
from metashot.engine.scoring.trie import Ints, TokenTrie, common_prefix, read_tokens

KEPT_MB = 128
"""MiB that callers who keep prefixes keep by default."""

LEAST_TOKENS = 16
"""A shorter prefix is not worth keeping."""

_EXACT = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """Tokens [n], and the keys and values [n, key heads, head size] of each layer, computed in one rope regime."""

    tokens: Ints
    path: PathCache
    regime: Regime


class KeptPrefixes:
    """The prefixes kept for one model, the least recently used first to go; to be used under the model's lock.

    They are forgotten when the weights are other tensors or were written to. What tensors do not tell (another adapter,
    a hook) the pass finds, which computes a kept prefix's last token anew.

    Args:
        model: whose keys and values.
        limit_bytes: of all of them together.
    """

    def __init__(self, model: PreTrainedModel, limit_bytes: int) -> None:
        self._model, self._limit = model, limit_bytes
        self._kept: list[KeptPrefix] = []
        self._weights: Any = None

    @property
    def bytes(self) -> int:
        """What is held now."""
        return sum(one.path.bytes for one in self._kept)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def find(self, requests: Sequence[Request], regime: Regime) -> tuple[KeptPrefix, int] | None:
        """The one that covers most tokens of a request, and how many these are."""
        weights = _weights(self._model)
        if weights != self._weights:
            self.clear()
            self._weights = weights
        sequences = [read_tokens(request) for request in requests if request.scored]
        covered = [
            max((common_prefix(one.tokens, tokens) for tokens in sequences), default=0)
            if one.regime == regime
            else 0
            for one in self._kept
        ]
        most = max(covered, default=0)
        if most < LEAST_TOKENS:
            return None
        self._kept.append(self._kept.pop(covered.index(most)))
        return self._kept[-1], most

    def rows_to_keep(self, trie: TokenTrie, known: int) -> Ints:
        """Rows of the path to keep of a call, if it is more than twice what was known of it; else none."""
        path = _heavy_path(trie) if self._weights is not None else []
        return np.array(path if len(path) >= max(LEAST_TOKENS, 2 * known + 1) else [], dtype=np.int64)

    def add(self, kept: KeptPrefix) -> None:
        """Keep a prefix, or as much of its beginning as the limit allows."""
        length = len(kept.tokens)
        fitting = min(length, self._limit * length // max(kept.path.bytes, 1))
        if fitting < LEAST_TOKENS:
            return
        if fitting < length:
            kept = KeptPrefix(kept.tokens[:fitting], kept.path.copy(fitting), kept.regime)
        self._kept = [
            one
            for one in self._kept
            if one.regime != kept.regime or common_prefix(one.tokens, kept.tokens) < len(one.tokens)
        ]
        self._kept.append(kept)
        while self.bytes > self._limit:
            del self._kept[0]


def _weights(model: PreTrainedModel) -> Any:
    """What changes when weights are exchanged or written to; None where nothing may be kept."""
    parameters: list[Any] = list(model.parameters())
    if any(one.dtype not in _EXACT for one in parameters):
        return None
    # Private: the counter of writes, of which tensors have no public one.
    return [
        (one.data_ptr(), one.dtype, str(one.device), None if one.is_inference() else one._version)
        for one in parameters
    ]


def _heavy_path(trie: TokenTrie) -> list[int]:
    """Rows from a root down, as long as one child has more than half of what lies below."""
    path: list[int] = []
    start, end = 0, trie.rows
    while start < end:
        children = [start]
        while (after := int(trie.ends[children[-1]])) < end:
            children.append(after)
        best = max(children, key=lambda row: int(trie.ends[row]) - row)
        stop = int(trie.ends[best])
        if 2 * (stop - best) <= end - start:
            break
        path.append(best)
        start, end = best + 1, stop
    return path
