"""The choices of `conf/scorer`: signatures that a config is held to; the scorers, and torch, are imported when one is made."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from metashot.engine.scoring.request import MakeScorer, Scorer

if TYPE_CHECKING:
    from metashot.engine.models.loading import LazyLanguageModel


def scorer_of(make: MakeScorer, model: LazyLanguageModel) -> Scorer:
    """The scorer for `model`: made of its loaded weights, or, by a maker with `reads_files`, of its files.

    An engine of its own (vLLM, a server) loads the weights itself, so they are not loaded here.
    """
    target = make.func if isinstance(make, partial) else make
    return make(model if getattr(target, "reads_files", False) else model.load().model)


def prefix_scorer(
    model: Any, memory_mb: int | None = None, *, force: bool = False, batch_size: int = 8
) -> Scorer:
    """A `PrefixScorer`; see there."""
    from metashot.engine.scoring.prefix import PrefixScorer

    return PrefixScorer(model, memory_mb, force=force, batch_size=batch_size)


def plain_scorer(model: Any, batch_size: int = 8) -> Scorer:
    """A `PlainScorer`; see there."""
    from metashot.engine.scoring.plain import PlainScorer

    return PlainScorer(model, batch_size)
