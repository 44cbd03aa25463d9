"""metashot: Hydra-configured experiments in few-shot learning with language models."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from metashot import moved_names

if TYPE_CHECKING:
    from metashot.icl.scoring.classifier import InContextClassifier
    from metashot.stages.notebook import compose, evaluate

    __version__: str

moved_names.install()

__all__ = ["InContextClassifier", "__version__", "compose", "evaluate"]


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import the public names when they are asked for: `import metashot` alone costs nothing."""
    if name in __all__:
        if name == "__version__":
            return _version()
        if name in ("compose", "evaluate"):
            from metashot.stages import notebook

            return getattr(notebook, name)
        from metashot.icl.scoring import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    try:
        return version("metashot")
    except PackageNotFoundError:
        return "unknown (not installed)"
