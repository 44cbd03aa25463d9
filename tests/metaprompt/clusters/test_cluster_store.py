"""From text to clusters: cached by content, resumable, refused with numbers when there is too little."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metashot.base.errors import DataError, ModelError
from metashot.data.text.sentences import SentenceRules, open_sentences
from metashot.engine.models.sentence_encoder import Embed
from metashot.metaprompt.clusters.clustering import ClusterConfig, cluster_vectors
from metashot.metaprompt.clusters.embedding import EncoderConfig, embed_sentences, load_encoder
from metashot.metaprompt.clusters.store import CorpusConfig, prepare_clusters

ENCODER = EncoderConfig("toy", 8, 10, "cpu")
CLUSTERS = ClusterConfig(3, 2, 20, 2, 0, 50, 2)


class CountingEncoder:
    """One-hot vectors by the first letter; counts the sentences it was given, and may die."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.seen, self.dies_after = 0, dies_after

    def __call__(self, sentences: list[str]) -> NDArray[np.float32]:
        if self.seen >= self.dies_after:
            raise KeyboardInterrupt
        self.seen += len(sentences)
        return np.asarray([[float(s[0] == letter) for letter in "ABC"] for s in sentences], dtype=np.float32)

    def make(self, spec: EncoderConfig) -> Embed:
        del spec
        return self


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusConfig:
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for letter in "ABC":
        text = "\n\n".join(f"{letter}pple {n} is red. {letter}ll {n} are green." for n in range(6))
        (corpus / f"{letter}.txt").write_text(text)
    return CorpusConfig(
        "toy", "text", str(corpus), None, "train", "text", "paragraph", 0,
        sentences=SentenceRules("en", 5, 2, 100, 2), encoder=ENCODER, clusters=CLUSTERS,
    )  # fmt: skip


def prepare(settings: CorpusConfig, encoder: CountingEncoder):
    return prepare_clusters(settings, notify=lambda line: None, make_encoder=encoder.make)


def test_clusters_follow_the_vectors_and_are_cached_by_content(settings: CorpusConfig):
    encoder = CountingEncoder()
    store = prepare(settings, encoder)
    assert encoder.seen == len(store.sentences) == 36
    for cluster in range(3):
        letters = {store.sentences[int(i)][0] for i in np.flatnonzero(store.assignment == cluster)}
        assert len(letters) == 1
    assert (store.report["size_min"], store.report["size_max"]) == (12, 12)
    assert store.report["silhouette_cosine"] == pytest.approx(1.0)
    assert len(store.report["cluster"][0]["nearest"]) == 2
    again = CountingEncoder()
    assert prepare(settings, again).digest == store.digest
    assert again.seen == 0
    other_k = prepare(replace(settings, clusters=replace(CLUSTERS, count=2)), again)
    assert again.seen == 0  # the vectors were there already
    assert other_k.digest != store.digest
    assert settings.path is not None
    (Path(settings.path) / "D.txt").write_text("Apple 9 is red. All 9 are green.")
    changed = CountingEncoder()
    assert prepare(settings, changed).digest != store.digest
    assert changed.seen == 38


def test_a_killed_embedding_goes_on_where_it_was(settings: CorpusConfig):
    """Blocks of 10 sentences: killed after 20, the second run embeds the other 16."""
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, CountingEncoder(dies_after=20))
    encoder = CountingEncoder()
    store = prepare(settings, encoder)
    assert encoder.seen == 16
    fresh = np.unique(np.asarray(store.assignment), return_counts=True)[1]
    assert fresh.tolist() == [12, 12, 12]


def test_no_flip_or_cut_of_a_cached_file_is_used(settings: CorpusConfig, tmp_path: Path):
    """Every file of sentences, vectors and clusters: made again, with the same outcome as before."""
    whole = prepare(settings, CountingEncoder())
    expected = np.asarray(whole.assignment).tolist(), np.asarray(whole.centroids).tolist(), whole.report
    text = [whole.sentences[index] for index in range(len(whole.sentences))]
    files = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert len(files) >= 9
    draw = random.Random(0)
    for path, content in files.items():
        for number in range(8 if content else 0):
            place = draw.randrange(len(content))
            flipped = (
                content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
            )
            path.write_bytes(flipped if number % 2 else content[:place])
            found = prepare(settings, CountingEncoder())
            assert (
                np.asarray(found.assignment).tolist(),
                np.asarray(found.centroids).tolist(),
                found.report,
            ) == expected
            assert [found.sentences[index] for index in range(len(found.sentences))] == text
            for file, original in files.items():  # a re-made report may hold the same figures in other bytes
                file.write_bytes(original)


def test_a_damaged_vector_file_is_embedded_again(settings: CorpusConfig, tmp_path: Path):
    prepare(settings, CountingEncoder())
    (vectors,) = (tmp_path / "cache").rglob("embeddings.f32")
    vectors.write_bytes(vectors.read_bytes()[:-4])
    sentences = open_sentences(next((tmp_path / "cache").rglob("sentences.json")).parent)
    encoder = CountingEncoder()
    embed_sentences(vectors.parent, sentences, lambda: encoder, block=10, report=lambda done, speed: None)
    assert encoder.seen == 36


def test_too_few_sentences_and_empty_clusters_are_said(settings: CorpusConfig):
    with pytest.raises(
        DataError, match=r"36 sentences are too few for 3 clusters of 20 sentences \(60 needed\)"
    ):
        prepare(replace(settings, clusters=replace(CLUSTERS, min_sentences=20)), CountingEncoder())
    vectors = np.asarray([[1.0, 0.0]] * 6, dtype=np.float32)
    with (
        pytest.warns(UserWarning, match="distinct clusters"),
        pytest.raises(DataError, match=r"cluster \d is empty"),
    ):
        cluster_vectors(vectors, replace(CLUSTERS, min_sentences=1))


def test_an_unknown_encoder_is_said(tmp_path: Path):
    with pytest.raises(ModelError, match="cannot load"):
        load_encoder(replace(ENCODER, model=str(tmp_path / "nothing")))(["a sentence"])


@pytest.mark.real_model
def test_the_embedded_encoder_puts_like_with_like():
    encode = load_encoder(replace(ENCODER, model="all-MiniLM-L6-v2"))
    boat, ship, loaf = encode(
        ["The boat left the harbour.", "A ship sailed away.", "She baked a loaf of bread."]
    )
    assert boat @ ship > 0.4 > boat @ loaf
    assert np.linalg.norm(boat) == pytest.approx(1.0, abs=1e-5)
