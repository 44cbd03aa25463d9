"""The choices of `conf/scorer`: signatures that a config is held to; the scorers, and torch, are imported when one is made."""

from __future__ import annotations

from typing import Any

from metashot.engine.scoring.request import Scorer


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
