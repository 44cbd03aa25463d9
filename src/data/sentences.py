"""Documents cut into sentences, kept on disk so that millions of them can be read without loading them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metashot.data.errors import DataError


@dataclass(frozen=True, slots=True)
class SentenceRules:
    """Which sentences and documents are kept; `corpus.sentences` in YAML.

    Attributes:
        language: language code of the splitter.
        min_characters: shortest sentence.
        min_words: shortest sentence, in words.
        max_characters: longest sentence; longer ones are dropped.
        min_per_document: documents with fewer sentences are dropped.
    """

    language: str
    min_characters: int
    min_words: int
    max_characters: int
    min_per_document: int


def split_sentences(document: str, rules: SentenceRules) -> list[str]:
    """The sentences of a document that `rules` keep, in order, whitespace normalized."""
    from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]

    kept: list[str] = []
    for raw in segment(rules.language, document):
        sentence = " ".join(raw.split())
        words = sum(1 for word in sentence.split() if any(map(str.isalnum, word)))
        if rules.min_characters <= len(sentence) <= rules.max_characters and words >= rules.min_words:
            kept.append(sentence)
    return kept


@dataclass(frozen=True, slots=True)
class SentenceStore:
    """Sentences on disk, memory-mapped.

    Attributes:
        folder: holds `text.bin`, `offsets.npy`, `documents.npy` and `sentences.json`.
        text: all sentences as UTF-8 bytes.
        offsets: byte offset of each sentence and the end, [n + 1].
        starts: first sentence of each document and the end, [documents + 1].
        digest: sha256 over sentences and document borders.
    """

    folder: Path
    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    starts: NDArray[np.int64]
    digest: str

    def __len__(self) -> int:
        """Number of sentences."""
        return len(self.offsets) - 1

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        """Sentence `index`."""
        return bytes(self.text[self.offsets[index] : self.offsets[index + 1]]).decode("utf-8")

    def document_of(self, index: int) -> int:
        """The document that sentence `index` belongs to."""
        return int(np.searchsorted(self.starts, index, side="right")) - 1


def build_sentences(folder: Path, documents: Iterable[str], rules: SentenceRules) -> SentenceStore:
    """Split documents and write the store into `folder`; the index file, written last, marks it whole.

    Raises:
        DataError: no sentence is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    offsets, starts, digest = [0], [0], hashlib.sha256()
    with (folder / "text.bin.partial").open("wb") as stream:
        for sentences in _split_all(documents, rules):
            for sentence in sentences:
                payload = sentence.encode("utf-8")
                stream.write(payload)
                digest.update(payload + b"\n")
                offsets.append(offsets[-1] + len(payload))
            digest.update(b"\0")
            starts.append(len(offsets) - 1)
        stream.flush()
        os.fsync(stream.fileno())
    if len(offsets) == 1:
        raise DataError(
            "corpus", "no sentence is left after filtering", "lower corpus.sentences.min_* or check the text"
        )
    os.replace(folder / "text.bin.partial", folder / "text.bin")
    np.save(folder / "offsets.npy", np.asarray(offsets, dtype=np.int64))
    np.save(folder / "documents.npy", np.asarray(starts, dtype=np.int64))
    index = {
        "digest": digest.hexdigest(),
        "sentences": len(offsets) - 1,
        "documents": len(starts) - 1,
        "rules": asdict(rules),
    }
    staging = folder / ".sentences.json.tmp"
    staging.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    os.replace(staging, folder / "sentences.json")
    return open_sentences(folder)


def open_sentences(folder: Path) -> SentenceStore:
    """Open a finished store.

    Raises:
        DataError: the store is missing, unfinished or shorter than its index says.
    """
    try:
        index = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
        offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        starts = np.load(folder / "documents.npy", mmap_mode="r", allow_pickle=False)
        text = np.memmap(folder / "text.bin", dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(
            str(folder), f"no whole sentence store: {error}", "run stage=prepare again"
        ) from error
    if len(offsets) != index["sentences"] + 1 or int(offsets[-1]) != len(text):
        raise DataError(
            str(folder), "the sentence store is cut short", "delete the folder and run stage=prepare"
        )
    return SentenceStore(folder, text, offsets, starts, index["digest"])


def _split_all(documents: Iterable[str], rules: SentenceRules) -> Iterator[list[str]]:
    for document in documents:
        sentences = split_sentences(document, rules)
        if len(sentences) >= rules.min_per_document:
            yield sentences
