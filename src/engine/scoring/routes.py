"""Which way a model's requests are scored: the fastest that a probe finds to do what the model does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from torch import nn
from transformers import PreTrainedModel

from metashot.engine.scoring.cached_prefix import CachedPrefixScorer
from metashot.engine.scoring.cascade import CascadeScorer
from metashot.engine.scoring.encoder import EncoderScorer
from metashot.engine.scoring.interception import MaskMarker, UnsharedAttentionError
from metashot.engine.scoring.last_layer import find_last_layer
from metashot.engine.scoring.memory import is_out_of_memory
from metashot.engine.scoring.plain import PlainScorer
from metashot.engine.scoring.probe import (
    Attentions,
    borders_of,
    mixes_batches,
    observe,
    probed_length,
    why_not,
)
from metashot.engine.scoring.request import BestScorer, Request


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
        borders: lengths above those that were probed, from which on the model computes in another way.
    """

    name: RouteName
    scorer: CountingScorer
    reason: str | None = None
    borders: tuple[int, ...] = ()


def choose_route(model: PreTrainedModel, memory_budget_bytes: int | None, batch_size: int) -> Route:
    """Probe the ways of scoring, fastest first.

    Args:
        model: a language model in eval mode.
        memory_budget_bytes: of the shared prefixes.
        batch_size: of the other ways.
    """
    if model.config.is_encoder_decoder:
        return Route(RouteName.SHARED_ENCODER, EncoderScorer(model, batch_size))
    found = _shared_prefixes(model, memory_budget_bytes)
    return found if isinstance(found, Route) else slower_route(model, batch_size, found)


def slower_route(model: PreTrainedModel, batch_size: int, reason: str) -> Route:
    """The fastest way beside shared prefixes, for a model that cannot have those for `reason`."""
    length, failure = probed_length(()), None
    for size in sorted({batch_size, 1}, reverse=True):
        scorer = CachedPrefixScorer(model, size, batch_size)
        failure = _tried(lambda scorer=scorer: why_not(model, scorer, length))
        if failure is None:
            return Route(RouteName.CACHED_PREFIX, scorer, reason)
    reason = f"{reason}; with a cached prefix, {failure}"
    mixed: list[bool] = []
    if batch_size > 1 and _tried(lambda: mixed.append(mixes_batches(model, length))) is None and mixed[0]:
        batch_size, reason = (
            1,
            f"{reason}; one request at a time, since those of a batch change each other's scores",
        )
    return Route(RouteName.PLAIN, PlainScorer(model, batch_size), reason)


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
            return Route(RouteName.SHARED_PREFIXES, scorers[0], None, later)
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
        return f"its forward pass fails ({type(error).__name__}: {words[0] if words else 'no message'})"
