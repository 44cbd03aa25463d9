"""Sentence embeddings: sentence-transformers into a memory-mapped file that a killed run goes on filling."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from metashot.base.files import write_json
from metashot.base.identity import NoEffect, identity_of
from metashot.base.json_text import digest_of, parse_json, sealed, unsealed
from metashot.base.value_kinds import GivenLine, Positive
from metashot.data.text.sentences import SentenceStore
from metashot.engine.models.devices import Device
from metashot.engine.models.sentence_encoder import Embed, encoder_folder, load_sentence_encoder

_PROGRESS = "embeddings.json"
_VECTORS = "embeddings.f32"
_BYTES = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The sentence encoder; `corpus.encoder` in YAML."""

    model: Annotated[GivenLine, NoEffect("the files of its folder are in the digest")]
    """`all-MiniLM-L6-v2` (embedded), or any sentence-transformers id or folder."""
    batch_size: Annotated[Positive, NoEffect("a vector is its sentence's own, up to rounding")]
    """Sentences per forward pass."""
    block: Annotated[Positive, NoEffect("what a killed run has kept")]
    """Sentences between two savings of the progress."""
    device: Annotated[Device, NoEffect("vectors are equal up to rounding")]
    """Torch device, or `auto`."""


def encoder_digest(spec: EncoderConfig) -> str:
    """What identifies the encoder in a cache key: the content of its folder, or the id of one of the hub."""
    folder = Path(encoder_folder(spec.model)).expanduser()
    return digest_of([identity_of(spec), identity_of(folder) if folder.is_dir() else spec.model])


def load_encoder(spec: EncoderConfig) -> Embed:
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
    """Unit vectors of all sentences, [n, e], memory-mapped; whole blocks are never computed twice.

    Args:
        folder: where the vectors live.
        sentences: what to embed.
        make_encoder: called once if anything is left to do.
        block: sentences per saved block.
        report: called with (sentences done, sentences per second) after each block.
    """
    progress = _whole_blocks(folder, len(sentences))
    first = progress.done
    if first < len(sentences):
        encode = make_encoder()
        started = time.perf_counter()
        while progress.done < len(sentences):
            stop = min(progress.done + block, len(sentences))
            vectors = encode([sentences[index] for index in range(progress.done, stop)])
            progress = _write_block(folder, vectors, progress, len(sentences))
            report(progress.done, (progress.done - first) / (time.perf_counter() - started))
    return np.memmap(folder / _VECTORS, dtype=np.float32, mode="r", shape=(len(sentences), progress.width))


@dataclass(frozen=True, slots=True)
class _Progress:
    """Finished blocks.

    Attributes:
        width: length of a vector.
        ends: sentences done after each block.
        digests: sha256 of each block's bytes.
    """

    width: int = 0
    ends: tuple[int, ...] = ()
    digests: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """Sentences that have their vector."""
        return self.ends[-1] if self.ends else 0


def _whole_blocks(folder: Path, total: int) -> _Progress:
    """The blocks before the first one that is missing or differs from its digest."""
    try:
        row = unsealed(parse_json((folder / _PROGRESS).read_bytes()))
        if row["total"] != total or (folder / _VECTORS).stat().st_size != total * row["width"] * _BYTES:
            return _Progress()
    except (OSError, ValueError, KeyError):
        return _Progress()
    saved = _Progress(row["width"], tuple(row["ends"]), tuple(row["digests"]))
    whole, start = 0, 0
    with (folder / _VECTORS).open("rb") as stream:
        for end, digest in zip(saved.ends, saved.digests, strict=True):
            if sha256(stream.read((end - start) * saved.width * _BYTES)).hexdigest() != digest:
                _log.warning("%s: a block is damaged; embedded again from there", folder / _VECTORS)
                break
            whole, start = whole + 1, end
    return _Progress(saved.width, saved.ends[:whole], saved.digests[:whole])


def _write_block(folder: Path, vectors: NDArray[np.float32], before: _Progress, total: int) -> _Progress:
    folder.mkdir(parents=True, exist_ok=True)
    path, width, start = folder / _VECTORS, vectors.shape[1], before.done
    fresh = not path.exists() or path.stat().st_size != total * width * _BYTES
    target = np.memmap(path, dtype=np.float32, mode="w+" if fresh else "r+", shape=(total, width))
    target[start : start + len(vectors)] = vectors
    target.flush()
    digest = sha256(np.ascontiguousarray(vectors, dtype=np.float32).tobytes()).hexdigest()
    after = _Progress(width, (*before.ends, start + len(vectors)), (*before.digests, digest))
    write_json(folder / _PROGRESS, sealed({"total": total, **asdict(after)}))
    return after
