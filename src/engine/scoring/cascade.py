"""Scoring with every shared prefix computed once: one pass over a token trie for each rope regime."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metashot.engine.scoring.execution import TriePass
from metashot.engine.scoring.projection import find_projection
from metashot.engine.scoring.request import Progress, Request
from metashot.engine.scoring.ropes import RopeRegimes
from metashot.engine.scoring.trie import build_trie


class CascadeScorer:
    """Runs a model on the flat rows of a trie, its attention done by the engine.

    Args:
        model: a causal language model.
        memory_budget_bytes: for activations and caches; None for the default of `rows_for_budget`.
        last_layer: the model's last layer, if it is to compute only the rows that are read.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        memory_budget_bytes: int | None = None,
        last_layer: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.memory_budget_bytes = memory_budget_bytes
        self._last_layer = last_layer
        self._projection = find_projection(model)
        self._regimes = RopeRegimes.of(model)

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Distinct prefixes, each once, within a rope regime."""
        groups = self._regimes.group(requests).values()
        return sum(build_trie([requests[index] for index in group]).rows for group in groups)

    @torch.inference_mode()
    def score_with_best(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> list[Tensor]:
        """See `BestScorer`."""
        scores = [torch.empty(0, 2)] * len(requests)
        groups = self._regimes.group(requests)
        tries = {regime: build_trie([requests[i] for i in members]) for regime, members in groups.items()}
        done, total = 0, sum(trie.rows for trie in tries.values())
        for regime, trie in tries.items():
            self._regimes.forget()
            one = TriePass(
                self.model, self._projection, self._last_layer, trie, self.memory_budget_bytes, regime
            )
            log_probs = one.execute(_from(done, total, on_progress))
            members = groups[regime]
            parts = log_probs.split([requests[index].scored for index in members])
            for index, part in zip(members, parts, strict=True):
                scores[index] = part.clone()
            done += trie.rows
        return scores


def _from(done: int, total: int, on_progress: Progress | None) -> Progress | None:
    """Progress of a part, told as progress of the whole."""
    if on_progress is None:
        return None
    return lambda rows, _: on_progress(done + rows, total)
