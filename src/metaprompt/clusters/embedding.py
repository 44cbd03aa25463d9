"""Sentence embeddings: sentence-transformers into a memory-mapped file that a killed run goes on filling."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metashot.data.sentences import SentenceStore
from metashot.engine.files import sha256_file, write_json
from metashot.engine.models.sentence_encoder import Embed, encoder_folder, load_sentence_encoder

_PROGRESS = "embeddings.json"
_VECTORS = "embeddings.f32"


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The sentence encoder; `corpus.encoder` in YAML.

    Attributes:
        model: `all-MiniLM-L6-v2` (embedded), or any sentence-transformers id or folder.
        batch_size: sentences per forward pass.
        block: sentences between two savings of the progress.
        device: torch device, or `auto`.
    """

    model: str
    batch_size: int
    block: int
    device: str


def encoder_digest(spec: EncoderSpec) -> str:
    """What identifies the encoder in a cache key: the weights' sha256 for a folder, else the id."""
    weights = Path(encoder_folder(spec.model)) / "model.safetensors"
    return sha256_file(weights) if weights.is_file() else spec.model


def load_encoder(spec: EncoderSpec) -> Embed:
    """A function from sentences to unit vectors [n, e] in float32.

    Raises:
        ModelError: at its first call, if the model cannot be loaded.
    """
    return load_sentence_encoder(spec.model, spec.batch_size, None if spec.device == "auto" else spec.device)


def embed_sentences(
    folder: Path,
    sentences: SentenceStore,
    make_encoder: Callable[[], Embed],
    *,
    block: int,
    report: Callable[[int, float], None],
) -> NDArray[np.float32]:
    """Unit vectors of all sentences, [n, e], memory-mapped; finished blocks are never computed twice.

    Args:
        folder: where the vectors live.
        sentences: what to embed.
        make_encoder: called once if anything is left to do.
        block: sentences per saved block.
        report: called with (sentences done, sentences per second) after each block.
    """
    progress = _read_progress(folder)
    done, width = progress
    if done < len(sentences):
        encode = make_encoder()
        started, first = time.perf_counter(), done
        while done < len(sentences):
            stop = min(done + block, len(sentences))
            vectors = encode([sentences[index] for index in range(done, stop)])
            width = vectors.shape[1]
            _write_block(folder, vectors, done, (len(sentences), width))
            done = stop
            report(done, (done - first) / (time.perf_counter() - started))
    return np.memmap(folder / _VECTORS, dtype=np.float32, mode="r", shape=(len(sentences), width))


def _read_progress(folder: Path) -> tuple[int, int]:
    try:
        row = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        size = (folder / _VECTORS).stat().st_size
        return (row["done"], row["width"]) if size == row["total"] * row["width"] * 4 else (0, 0)
    except (OSError, ValueError, KeyError):
        return 0, 0


def _write_block(folder: Path, vectors: NDArray[np.float32], start: int, shape: tuple[int, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _VECTORS
    fresh = not path.exists() or path.stat().st_size != shape[0] * shape[1] * 4
    target = np.memmap(path, dtype=np.float32, mode="w+" if fresh else "r+", shape=shape)
    target[start : start + len(vectors)] = vectors
    target.flush()
    write_json(folder / _PROGRESS, {"done": start + len(vectors), "total": shape[0], "width": shape[1]})
