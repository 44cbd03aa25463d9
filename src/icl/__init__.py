"""In-context learning: prompts, scoring methods, meta-training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metashot.icl.scoring.classifier import InContextClassifier

__all__ = ["InContextClassifier"]


def __getattr__(name: str) -> Any:
    """Import the classifier when it is asked for, since it brings torch."""
    if name in __all__:
        from metashot.icl import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
