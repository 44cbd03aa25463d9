"""Scoring with every shared prefix computed once: one pass over a token trie for each rope regime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metashot.engine.scoring.execution import PrefixChangedError, TriePass
from metashot.engine.scoring.kept import KeptPrefix, KeptPrefixes
from metashot.engine.scoring.projection import find_projection
from metashot.engine.scoring.request import Progress, Request
from metashot.engine.scoring.ropes import Regime, RopeRegimes
from metashot.engine.scoring.trie import TokenTrie, build_trie


@dataclass(frozen=True, slots=True)
class _Part:
    """Requests of one rope regime, by place, and their trie."""

    regime: Regime
    members: list[int]
    trie: TokenTrie


class CascadeScorer:
    """Runs a model on the flat rows of a trie, its attention done by the engine.

    Args:
        model: a causal language model.
        memory_budget_bytes: for activations and caches; None for the default of `rows_for_budget`.
        last_layer: the model's last layer, if it is to compute only the rows that are read.

    Attributes:
        kept: prefixes of earlier calls; None where each call stands alone.
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
        self.kept: KeptPrefixes | None = None
        self._last: tuple[Sequence[Request], list[_Part]] | None = None

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Distinct prefixes, each once, within a rope regime; as if nothing were kept of earlier calls."""
        return sum(part.trie.rows for part in self._parts(requests))

    def _parts(self, requests: Sequence[Request]) -> list[_Part]:
        """The requests by rope regime; a cell is scored and counted, so those of the last tuple are kept."""
        if self._last is not None and self._last[0] is requests:
            return self._last[1]
        groups = self._regimes.group(requests).items()
        parts = [
            _Part(regime, members, build_trie([requests[i] for i in members])) for regime, members in groups
        ]
        self._last = (requests, parts) if isinstance(requests, tuple) else None
        return parts

    @torch.inference_mode()
    def score_with_best(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> list[Tensor]:
        """See `BestScorer`."""
        return self._scored(requests, on_progress)[0]

    @torch.inference_mode()
    def score_with_states(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """The same with the states at the answers, see `StatesScorer`; of one pass."""
        scores, states = self._scored(requests, on_progress, keeps_states=True)
        return scores, torch.stack(states)

    def _scored(
        self, requests: Sequence[Request], on_progress: Progress | None, *, keeps_states: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        scores = [torch.empty(0, 2)] * len(requests)
        states = [torch.empty(0)] * len(requests)
        parts = self._parts(requests)
        done, total = 0, sum(part.trie.rows for part in parts)
        for part in parts:
            advance = _from(done, total, on_progress)
            members = [requests[index] for index in part.members]
            found = None if self.kept is None else self.kept.find(members, part.regime)
            try:
                log_probs, answers = self._passed(part, found, members, advance, keeps_states)
            except PrefixChangedError:  # by what no weight tells: another adapter, a hook
                assert self.kept is not None
                self.kept.clear()
                log_probs, answers = self._passed(part, None, members, advance, keeps_states)
            split = log_probs.split([requests[index].scored for index in part.members])
            for index, score in zip(part.members, split, strict=True):
                scores[index] = score.clone()
            if answers is not None:
                for index, state in zip(part.members, answers, strict=True):
                    states[index] = state
            done += part.trie.rows
        return scores, states

    def _passed(
        self,
        part: _Part,
        found: tuple[KeptPrefix, int] | None,
        members: Sequence[Request],
        on_progress: Progress | None,
        keeps_states: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities [pairs, 2] of a part and its states, with a kept prefix left out and the next one kept."""
        self._regimes.forget()
        trie, path, known = part.trie, None, 0
        if found is not None:
            trie, path = build_trie(members, found[0].tokens), found[0].path
            known = min(found[1], int(trie.pair_rows.min()))  # a row that is read is computed
        keep = None if self.kept is None else self.kept.rows_to_keep(trie, known)
        one = TriePass(
            self.model,
            self._projection,
            self._last_layer,
            trie,
            self.memory_budget_bytes,
            part.regime,
            keeps_states=keeps_states,
            known=path if known else None,
            known_rows=known,
            keep=keep,
        )
        log_probs = one.execute(on_progress)
        if self.kept is not None and keep is not None and one.kept is not None:
            self.kept.add(KeptPrefix(trie.tokens[keep], one.kept, part.regime))
        return log_probs, one.states


def _from(done: int, total: int, on_progress: Progress | None) -> Progress | None:
    """Progress of a part, told as progress of the whole."""
    if on_progress is None:
        return None
    return lambda rows, _: on_progress(done + rows, total)
