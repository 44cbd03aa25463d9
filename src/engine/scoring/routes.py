"""Which way a model's requests are scored: the fastest that a probe finds to do what the model does."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from torch import nn
from transformers import PreTrainedModel

from metashot.engine.scoring.borders import borders_of, chooses_tokens
from metashot.engine.scoring.cached_prefix import CachedPrefixScorer
from metashot.engine.scoring.cascade import CascadeScorer
from metashot.engine.scoring.encoder import EncoderScorer
from metashot.engine.scoring.interception import MaskMarker, UnsharedAttentionError
from metashot.engine.scoring.last_layer import find_last_layer
from metashot.engine.scoring.memory import is_out_of_memory
from metashot.engine.scoring.plain import PlainScorer, difference_to_alone
from metashot.engine.scoring.probe import (
    Attentions,
    check_causal,
    mixes_batches,
    observe,
    probed_length,
    why_not,
)
from metashot.engine.scoring.request import BestScorer, Request, targets_only


class RouteName(StrEnum):
    """The ways of scoring, fastest first."""

    SHARED_PREFIXES = "shared_prefixes"
    CACHED_PREFIX = "cached_prefix"
    SHARED_ENCODER = "shared_encoder"
    PLAIN = "plain"


class CountingScorer(BestScorer, Protocol):
    """A scorer that can tell what it computes."""

    def tokens_computed(self, requests: Sequence[Request]) -> int:
        """Tokens that `score(requests)` runs through the model."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """A way of scoring one model.

    Attributes:
        name: which.
        scorer: does it.
        reason: why it is not a faster one; None for the fastest of its kind of model.
        borders: lengths above those that were compared, from which on the model may compute in another way.
        compared: tokens of the longest request that was compared with itself alone.
    """

    name: RouteName
    scorer: CountingScorer
    reason: str | None = None
    borders: tuple[int, ...] = ()
    compared: int = 0

    def is_new(self, length: int) -> bool:
        """Whether a request of so many tokens passes a border, or is twice as long as any that was compared."""
        return length >= 2 * self.compared or any(border < length for border in self.borders)

    def now_compared(self, length: int) -> Route:
        """The same after a comparison at `length` tokens."""
        left = tuple(border for border in self.borders if border >= length)
        return replace(self, borders=left, compared=max(length, self.compared))


def choose_route(model: PreTrainedModel, memory_budget_bytes: int | None, batch_size: int) -> Route:
    """Probe the ways of scoring, fastest first.

    Args:
        model: a language model in eval mode.
        memory_budget_bytes: of the shared prefixes.
        batch_size: of the other ways.

    Raises:
        ModelError: the model is not causal.
    """
    if model.config.is_encoder_decoder:
        return Route(RouteName.SHARED_ENCODER, EncoderScorer(model, batch_size))
    check_causal(model)
    found = _shared_prefixes(model, memory_budget_bytes)
    return found if isinstance(found, Route) else slower_route(model, batch_size, found)


def slower_route(
    model: PreTrainedModel, batch_size: int, reason: str, requests: Sequence[Request] = ()
) -> Route:
    """The fastest way beside shared prefixes, for a model that cannot have those for `reason`.

    Args:
        model: a causal language model.
        batch_size: at most.
        reason: for the user.
        requests: some that are at hand, on which each way is tried too.
    """
    borders = borders_of(model)
    length, failure = probed_length(borders), None
    longest = max([length, *(request.length for request in requests)])
    later = tuple(border for border in borders if border >= longest)
    mixed: list[bool] = []
    plain_size = batch_size
    if chooses_tokens(model, longest):
        return Route(
            RouteName.PLAIN, PlainScorer(model, 1), f"{reason}; one request at a time", later, longest
        )
    if batch_size > 1:
        mixes = _tried(lambda: mixed.append(mixes_batches(model, length, requests))) is None and mixed[0]
        plain_size = 1 if mixes else batch_size

    def fault(scorer: BestScorer) -> str | None:
        found = why_not(model, scorer, length)
        if found is None and requests:
            ours = targets_only(scorer.score_with_best(requests))
            found = difference_to_alone(model, requests, ours).problem
        return found

    for size in sorted({batch_size, 1}, reverse=True):
        scorer = CachedPrefixScorer(model, size, plain_size)
        failure = _tried(lambda scorer=scorer: fault(scorer))
        if failure is None:
            return Route(RouteName.CACHED_PREFIX, scorer, reason, later, longest)
    reason = f"{reason}; with a cached prefix, {failure}"
    if plain_size < batch_size:
        reason = f"{reason}; one request at a time, since those of a batch change each other's scores"
    return Route(RouteName.PLAIN, PlainScorer(model, plain_size), reason, later, longest)


def _shared_prefixes(model: PreTrainedModel, memory_budget_bytes: int | None) -> Route | str:
    """The route, or why there is none."""
    seen: list[Attentions] = []
    failure = _tried(lambda: seen.append(observe(model)))
    if failure is not None:
        return failure
    borders = borders_of(model, seen[0].windows)
    length = probed_length(borders)
    later = tuple(border for border in borders if border >= length)
    failure = None
    for last_layer in dict.fromkeys((find_last_layer(model, seen[0].calls), None)):
        scorers: list[CascadeScorer] = []

        def attempt(
            last_layer: nn.Module | None = last_layer, into: list[CascadeScorer] = scorers
        ) -> str | None:
            into.append(CascadeScorer(model, memory_budget_bytes, last_layer))
            return why_not(model, into[0], length)

        failure = _tried(attempt)
        if failure is None:
            return Route(RouteName.SHARED_PREFIXES, scorers[0], None, later, length)
    assert failure is not None
    return failure


def _tried(attempt: Callable[[], str | None]) -> str | None:
    """The outcome of an attempt with a model that may not be made for it, and so may fail in any way."""
    try:
        return attempt()
    except UnsharedAttentionError as error:
        return str(error)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        words = str(error).splitlines()
        if MaskMarker.__name__ in str(error):
            return "it computes on its attention mask"
        innermost = traceback.extract_tb(error.__traceback__)[-1]
        if Path(innermost.filename).is_relative_to(Path(__file__).parents[2]):
            place = f"{Path(innermost.filename).name}:{innermost.lineno}"
            return f"a part of metashot fails on it ({type(error).__name__} in {place})"
        return f"its forward pass fails ({type(error).__name__}: {words[0] if words else 'no message'})"
