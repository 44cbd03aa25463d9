"""Documents cut into sentences, kept on disk so that millions of them can be read without loading them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.base.extras import import_extra
from metashot.base.files import data_errors, record_of, replacing, write_json
from metashot.base.json_text import parse_json, sealed, unsealed
from metashot.base.value_kinds import Count, Language, Positive

INDEX_FILE, TEXT_FILE = "sentences.json", "text.bin"
OFFSETS_FILE, DOCUMENTS_FILE = "offsets.npy", "documents.npy"


@dataclass(frozen=True, slots=True)
class SentenceRules:
    """Which sentences and documents are kept; `corpus.sentences` in YAML."""

    language: Language
    """Language code of the splitter."""
    min_characters: Count
    """Shortest sentence."""
    min_words: Count
    """Shortest sentence, in words."""
    max_characters: Positive
    """Longest sentence; longer ones are dropped."""
    min_per_document: Positive
    """Documents with fewer sentences are dropped."""


def split_sentences(document: str, rules: SentenceRules) -> list[str]:
    """The sentences of a document that `rules` keep, in order, whitespace normalized."""
    segment = import_extra("sentencex", "corpus.document", "segment")

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
    offsets, starts, digest = [0], [0], hashlib.sha256()
    with replacing(folder / TEXT_FILE) as stream:
        for sentences in _split_all(documents, rules):
            for sentence in sentences:
                payload = sentence.encode("utf-8")
                stream.write(payload)
                digest.update(payload + b"\n")
                offsets.append(offsets[-1] + len(payload))
            digest.update(b"\0")
            starts.append(len(offsets) - 1)
        if len(offsets) == 1:
            raise DataError(
                "corpus",
                "no sentence is left after filtering",
                "lower corpus.sentences.min_* or check the text",
            )
    for name, places in ((OFFSETS_FILE, offsets), (DOCUMENTS_FILE, starts)):
        with replacing(folder / name) as stream:
            np.save(stream, np.asarray(places, dtype=np.int64), allow_pickle=False)
    index = {
        "digest": digest.hexdigest(),
        "sentences": len(offsets) - 1,
        "documents": len(starts) - 1,
        "rules": asdict(rules),
        "files": {
            name: record_of(folder / name).sha256 for name in (TEXT_FILE, OFFSETS_FILE, DOCUMENTS_FILE)
        },
    }
    write_json(folder / INDEX_FILE, sealed(index), data_errors)
    return open_sentences(folder)


def open_sentences(folder: Path) -> SentenceStore:
    """Open a finished store whose files have the digests of its index.

    Raises:
        DataError: the store is missing, unfinished or damaged.
    """
    try:
        index = unsealed(parse_json((folder / INDEX_FILE).read_bytes()))
        for name, digest in index["files"].items():
            if record_of(folder / name).sha256 != digest:
                raise ValueError(f"{name} differs from its digest")
        offsets = np.load(folder / OFFSETS_FILE, mmap_mode="r", allow_pickle=False)
        starts = np.load(folder / DOCUMENTS_FILE, mmap_mode="r", allow_pickle=False)
        text = np.memmap(folder / TEXT_FILE, dtype=np.uint8, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            str(folder), f"no whole sentence store: {error}", "run stage=prepare again"
        ) from error
    return SentenceStore(folder, text, offsets, starts, index["digest"])


def _split_all(documents: Iterable[str], rules: SentenceRules) -> Iterator[list[str]]:
    for document in documents:
        sentences = split_sentences(document, rules)
        if len(sentences) >= rules.min_per_document:
            yield sentences
