"""From a corpus to clusters on disk: `stage=prepare` of the prompt methods, cached by content and resumable.

Layout below the cache: `corpora/<name>-<digest>/` holds the sentences, `.../embeddings-<digest>/` the vectors and
`.../clusters-<digest>/` assignment, centroids and report; every digest covers what decides the content.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from metashot.base.components.values import part_of
from metashot.base.errors import DataError
from metashot.base.files import (
    is_read_only,
    output_errors,
    remove_leftovers,
    sha256_file,
    write_atomic,
    write_json,
)
from metashot.base.identity import identity_of
from metashot.base.json_text import digest_of, parse_json, sealed, unsealed
from metashot.data.text.corpus import CorpusSource, read_documents
from metashot.data.text.sentences import (
    INDEX_FILE,
    SentenceRules,
    SentenceStore,
    build_sentences,
    open_sentences,
)
from metashot.engine.models.gguf import cache_folder
from metashot.engine.models.sentence_encoder import Embed
from metashot.metaprompt.clusters.clustering import ClusterConfig, Clustering, cluster_vectors, quality_report
from metashot.metaprompt.clusters.embedding import (
    EncoderConfig,
    embed_sentences,
    encoder_digest,
    load_encoder,
)

_SHORT = 16
ASSIGNMENT_FILE, CENTROIDS_FILE, REPORT_FILE = "assignment.npy", "centroids.npy", "report.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusConfig(CorpusSource):
    """The whole node `corpus`: where text comes from, and what becomes of it."""

    sentences: SentenceRules
    """Which of them are kept."""
    encoder: EncoderConfig
    """What embeds them."""
    clusters: ClusterConfig
    """How they are clustered."""


@dataclass(frozen=True, slots=True)
class ClusterStore:
    """Sentences with their clusters.

    Attributes:
        sentences: the text.
        assignment: cluster of each sentence, [n].
        centroids: in the encoder's space, [clusters, e].
        digest: identifies sentences, encoder and clustering together.
        report: sizes, nearest sentences and silhouette.
    """

    sentences: SentenceStore
    assignment: NDArray[np.int32]
    centroids: NDArray[np.float32]
    digest: str
    report: dict[str, Any]

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.centroids)


def prepare_clusters(
    corpus: CorpusConfig,
    *,
    notify: Callable[[str], None],
    make_encoder: Callable[[EncoderConfig], Embed] = load_encoder,
) -> ClusterStore:
    """Split, embed and cluster a corpus, or open what an earlier run left.

    Args:
        corpus: texts, sentence rules, encoder and clustering.
        notify: told one line about each step.
        make_encoder: replaced in tests.

    Raises:
        DataError: too little text for the clusters asked, or an empty cluster.
        OutputError: the cache cannot be written.
    """
    folder, documents = _corpus_folder(corpus)
    with _alone_in(folder):
        sentences = _sentences(folder, documents, corpus.sentences, notify)
        return _clusters(folder, sentences, corpus, notify, make_encoder)


def find_clusters(
    corpus: CorpusConfig, *, notify: Callable[[str], None]
) -> tuple[SentenceStore, ClusterStore | None]:
    """The corpus cut into sentences (which is cheap), and its clusters if an earlier run left them.

    Raises:
        OutputError: the cache cannot be written.
    """
    folder, documents = _corpus_folder(corpus)
    with _alone_in(folder):
        sentences = _sentences(folder, documents, corpus.sentences, notify)
        _, digest, target = _places(folder, sentences, corpus)
        found = (target / REPORT_FILE).is_file()
        return sentences, _open(sentences, target, digest) if found else None


@contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    """Held by one process at a time, without what killed ones left; a read-only cache serves what it has."""
    lock = FileLock(folder / ".lock")
    with output_errors(folder):
        try:
            lock.acquire()
        except OSError as error:
            if not is_read_only(error):
                raise
        try:
            remove_leftovers(folder)
            remove_leftovers(folder, "*/.*.tmp")
            yield
        finally:
            lock.release()


def _corpus_folder(corpus: CorpusConfig) -> tuple[Path, Callable[[], Iterator[str]]]:
    """Where the corpus lies in the cache, made if missing, and its documents."""
    documents, digest = _digested(part_of(CorpusSource, corpus))
    key = digest_of({"documents": digest, "rules": identity_of(corpus.sentences)})
    folder = cache_folder() / "corpora" / f"{corpus.name}-{key[:_SHORT]}"
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder, documents


def _places(folder: Path, sentences: SentenceStore, corpus: CorpusConfig) -> tuple[Path, str, Path]:
    """Folder of the vectors, digest of the clusters and their folder."""
    encoder = digest_of({"sentences": sentences.digest, "encoder": encoder_digest(corpus.encoder)})
    digest = digest_of({"vectors": encoder, "clusters": identity_of(corpus.clusters)})
    return folder / f"embeddings-{encoder[:_SHORT]}", digest, folder / f"clusters-{digest[:_SHORT]}"


def _digested(spec: CorpusSource) -> tuple[Callable[[], Iterator[str]], str]:
    """A fresh iterator over the documents, and their digest; a hub stream is identified by its spec instead."""
    if spec.source == "hub":
        return lambda: read_documents(spec), digest_of(identity_of(spec))
    digest = hashlib.sha256()
    for document in read_documents(spec):
        digest.update(document.encode("utf-8") + b"\0")
    return lambda: read_documents(spec), digest.hexdigest()


def _sentences(
    folder: Path, documents: Callable[[], Iterator[str]], rules: SentenceRules, notify: Callable[[str], None]
) -> SentenceStore:
    if (folder / INDEX_FILE).is_file():
        try:
            store = open_sentences(folder)
        except DataError as error:
            _log.warning("%s; made again", error)
        else:
            notify(f"sentences: {len(store)} in {store.documents} documents (cached)")
            return store
    store = build_sentences(folder, documents(), rules)
    notify(f"sentences: {len(store)} in {store.documents} documents")
    return store


def _clusters(
    folder: Path,
    sentences: SentenceStore,
    corpus: CorpusConfig,
    notify: Callable[[str], None],
    make_encoder: Callable[[EncoderConfig], Embed],
) -> ClusterStore:
    embeddings, digest, target = _places(folder, sentences, corpus)
    if (target / REPORT_FILE).is_file():
        try:
            store = _open(sentences, target, digest)
        except DataError as error:
            _log.warning("%s; clustered again", error)
        else:
            notify(f"clusters: {corpus.clusters.count} (cached in {target.name})")
            return store
    vectors = embed_sentences(
        embeddings,
        sentences,
        lambda: make_encoder(corpus.encoder),
        block=corpus.encoder.block,
        report=lambda done, speed: notify(
            f"embedded {done} of {len(sentences)} sentences, {speed:.0f} sentences/s"
        ),
    )
    clustering = cluster_vectors(vectors, corpus.clusters)
    report = quality_report(vectors, clustering, sentences, corpus.clusters)
    _write(target, clustering, report)
    score = report["silhouette_cosine"]
    notify(
        f"clusters: {report['clusters']} of {report['size_min']} to {report['size_max']} sentences,"
        f" silhouette {'not defined' if score is None else f'{score:.2f}'}"
    )
    return _open(sentences, target, digest)


def _write(folder: Path, clustering: Clustering, report: dict[str, Any]) -> None:
    files: dict[str, str] = {}
    for name, array in ((ASSIGNMENT_FILE, clustering.assignment), (CENTROIDS_FILE, clustering.centroids)):
        buffer = BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_atomic(folder / name, buffer.getvalue())
        files[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    # Written last: marks the folder whole.
    write_json(folder / REPORT_FILE, sealed({"files": files, "report": report}))


def _open(sentences: SentenceStore, folder: Path, digest: str) -> ClusterStore:
    """The clusters in `folder`, when its files have the digests of its report.

    Raises:
        DataError: damaged or unfinished.
    """
    try:
        content = unsealed(parse_json((folder / REPORT_FILE).read_bytes()))
        for name, expected in content["files"].items():
            if sha256_file(folder / name) != expected:
                raise ValueError(f"{name} differs from its digest")
        assignment = np.load(folder / ASSIGNMENT_FILE, mmap_mode="r", allow_pickle=False)
        centroids = np.load(folder / CENTROIDS_FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(str(folder), f"no whole clusters: {error}", "run stage=prepare again") from error
    return ClusterStore(sentences, assignment, centroids, digest, content["report"])
