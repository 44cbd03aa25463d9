"""Scoring with the common prefix's cache computed once and copied for every branch.

For models whose attention the engine cannot do (position biases, chunks, recurrent layers): the model's own cache,
whatever it holds, is filled once with what a group of requests shares. What the branches share among each
other is computed again for each.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from metashot.engine.models.own_head import head_input, logits_at
from metashot.engine.scoring.interception import UnsharedAttentionError
from metashot.engine.scoring.memory import is_out_of_memory
from metashot.engine.scoring.plain import padded, score_plain_with_best
from metashot.engine.scoring.request import Progress, Request
from metashot.engine.scoring.ropes import RopeRegimes
from metashot.engine.scoring.vocabulary import chosen_and_best

_logger = logging.getLogger(__name__)

_WORTHWHILE_TOKENS = 8
"""A shorter prefix, or one of a single request, is not worth a cache."""


@dataclass(frozen=True, slots=True)
class PrefixGroup:
    """Requests that share their first tokens.

    Attributes:
        shared: that many tokens; every member has at least one more to read before its first scored token.
        members: indices of the requests.
    """

    shared: int
    members: tuple[int, ...]

    @property
    def is_worthwhile(self) -> bool:
        """Whether to fill a cache for it."""
        return self.shared >= _WORTHWHILE_TOKENS and len(self.members) > 1


def prefix_groups(requests: Sequence[Request]) -> list[PrefixGroup]:
    """Neighbours in sorted order, joined as long as the tokens saved do not get fewer; scored requests only."""
    tokens = [request.context + request.target for request in requests]
    groups: list[PrefixGroup] = []
    for index in sorted((i for i, request in enumerate(requests) if request.scored), key=lambda i: tokens[i]):
        free = requests[index].length - requests[index].scored - 1
        if groups:
            last = groups[-1]
            shared = min(last.shared, free, _common(tokens[last.members[0]], tokens[index]))
            if len(last.members) * shared >= (len(last.members) - 1) * last.shared and shared:
                groups[-1] = PrefixGroup(shared, (*last.members, index))
                continue
        groups.append(PrefixGroup(free, (index,)))
    return groups


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)


class CachedPrefixScorer:
    """Fills the model's own cache once for each group of requests.

    Args:
        model: a causal language model in eval mode.
        batch_size: branches per forward pass; 1 for caches that cannot be repeated along the batch, or models
            that read padding.
        plain_batch_size: of requests that share nothing.
    """

    def __init__(self, model: PreTrainedModel, batch_size: int = 8, plain_batch_size: int = 8) -> None:
        self.model = model
        self.batch_size = batch_size
        self.plain_batch_size = plain_batch_size
        self._regimes = RopeRegimes.of(model)

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Every request, less what its group has in the cache."""
        total = sum(request.length for request in requests if request.scored)
        short = [requests[index] for index in self._regimes.group(requests).get(None, [])]
        shared = (group for group in prefix_groups(short) if group.is_worthwhile)
        return total - sum(group.shared * (len(group.members) - 1) for group in shared)

    @torch.inference_mode()
    def score_with_best(
        self, requests: Sequence[Request], on_progress: Progress | None = None
    ) -> list[Tensor]:
        """Per request a float32 CPU tensor [request.scored] of target log-probabilities in nats."""
        scores = [torch.empty(0, 2)] * len(requests)
        # A prefix computed as a short sequence would have the wrong rotary factors for a long one.
        short = self._regimes.group(requests).get(None, [])
        groups = prefix_groups([requests[index] for index in short])
        shared = [group for group in groups if group.is_worthwhile]
        members = {short[i] for group in shared for i in group.members}
        alone = [i for i, request in enumerate(requests) if request.scored and i not in members]
        done, total = 0, sum(request.length for request in requests if request.scored)
        for group in shared:
            indices = [short[i] for i in group.members]
            for index, row in zip(
                indices, self._group(group.shared, [requests[i] for i in indices]), strict=True
            ):
                scores[index] = row
            done += sum(requests[index].length for index in indices)
            if on_progress is not None:
                on_progress(done, total)
        rest = [requests[index] for index in alone]
        later = None if on_progress is None else lambda tokens, _: on_progress(done + tokens, total)
        for index, row in zip(
            alone,
            score_plain_with_best(self.model, rest, self.plain_batch_size, on_progress=later),
            strict=True,
        ):
            scores[index] = row
        return scores

    def _group(self, shared: int, requests: list[Request]) -> list[Tensor]:
        self._regimes.forget()
        model: Any = self.model
        tokens = requests[0].context + requests[0].target
        prefix = torch.tensor([tokens[:shared]], device=model.device)
        with head_input(model, lambda hidden: hidden[:, :1]):  # its logits are not read
            out: Any = model(input_ids=prefix, use_cache=True)
        name = next((name for name in ("past_key_values", "cache_params") if out.get(name) is not None), None)
        if name is None:
            raise UnsharedAttentionError("it gives no cache")
        rows: list[Tensor] = []
        batch_size = self.batch_size
        while len(rows) < len(requests):
            batch = requests[len(rows) : len(rows) + batch_size]
            try:
                rows += self._branches(name, out[name], shared, batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
                batch_size = len(batch) // 2
                _logger.warning("out of memory with %d branches: going on with %d", len(batch), batch_size)
        return rows

    def _branches(self, name: str, cache: Any, shared: int, batch: list[Request]) -> list[Tensor]:
        """Scores of some branches, each reading a copy of the cache."""
        device = self.model.device
        sequences = [request.context + request.target for request in batch]
        ids, mask = padded([sequence[shared:] for sequence in sequences], device)
        cache = deepcopy(cache)
        inputs: dict[str, Any] = {"input_ids": ids, name: cache, "use_cache": True}
        if self.batch_size > 1:
            # Row 0 for each branch. `batch_repeat_interleave` does the same, but not for the states of recurrent layers.
            cache.reorder_cache(torch.zeros(len(batch), dtype=torch.long, device=device))
            inputs["attention_mask"] = torch.cat([mask.new_ones(len(batch), shared), mask], dim=1)
        predicting = torch.zeros_like(mask, dtype=torch.bool)
        for row, request in enumerate(batch):
            last = request.length - 1 - shared
            predicting[row, last - request.scored : last] = True
        logits = logits_at(self.model, *predicting.nonzero(as_tuple=True), **inputs)
        targets = [request.target[len(request.target) - request.scored :] for request in batch]
        wanted = torch.tensor([token for target in targets for token in target], device=device)
        log_probs = chosen_and_best(logits, wanted).cpu()
        return [row.clone() for row in log_probs.split([request.scored for request in batch])]
