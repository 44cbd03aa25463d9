"""metashot: Hydra-configured experiments in few-shot learning with language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metashot import moved_names

if TYPE_CHECKING:
    from metashot.icl.scoring.classifier import InContextClassifier

moved_names.install()

__all__ = ["InContextClassifier"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are asked for: `import metashot` alone costs nothing."""
    if name in __all__:
        from metashot.icl import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
