"""Documents from every source, and sentences from documents."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from metashot.base.errors import ConfigError, DataError
from metashot.data.text.corpus import CorpusSource, read_documents, split_documents
from metashot.data.text.sentences import SentenceRules, build_sentences, open_sentences, split_sentences

DEMO = CorpusSource("demo", "demo", None, None, "train", "text", "paragraph", 0)
RULES = SentenceRules("en", 5, 2, 200, 2)


def test_the_demo_corpus_is_large_enough():
    """At least 150 short documents over at least 10 topics, one file each."""
    names = [
        item.name for item in (files("metashot.data") / "demo_corpus").iterdir() if item.name.endswith(".txt")
    ]
    documents = list(read_documents(DEMO))
    assert len(names) >= 10
    assert len(documents) >= 150
    assert len(set(documents)) == len(documents)
    assert all(len(split_sentences(document, RULES)) >= 3 for document in documents)


def test_documents_by_file_paragraph_and_line():
    text = "One\ntwo.\n\n \nThree.\n"
    assert list(split_documents(text, "file")) == ["One\ntwo.\n\n \nThree."]
    assert list(split_documents(text, "paragraph")) == ["One two.", "Three."]
    assert list(split_documents(text, "line")) == ["One", "two.", "Three."]


def test_text_and_jsonl_folders(tmp_path: Path):
    (tmp_path / "b.txt").write_text("B one.\n\nB two.")
    (tmp_path / "a.txt").write_text("A.")
    (tmp_path / "c.jsonl").write_text(json.dumps({"body": "C."}) + "\n\n" + json.dumps({"body": "D."}) + "\n")
    text = replace(DEMO, source="text", path=str(tmp_path))
    assert list(read_documents(text)) == ["A.", "B one.", "B two."]
    assert list(read_documents(replace(text, max_documents=2))) == ["A.", "B one."]
    lines = replace(DEMO, source="jsonl", path=str(tmp_path), field="body")
    assert list(read_documents(lines)) == ["C.", "D."]
    with pytest.raises(DataError, match=r"c\.jsonl:1: no text under 'text'"):
        list(read_documents(replace(lines, field="text")))


def test_bad_sources_are_said(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"corpus\.source: input should be .*, got 'web'"):
        replace(DEMO, source="web")
    with pytest.raises(DataError, match=r"corpus\.path: corpus 'demo' has no path"):
        replace(DEMO, source="text")
    with pytest.raises(DataError, match=r"no \.txt file at"):
        list(read_documents(replace(DEMO, source="text", path=str(tmp_path))))
    (tmp_path / "x.txt").write_bytes(b"\xff\x41\x42")
    with pytest.raises(DataError, match="is not UTF-8"):
        list(read_documents(replace(DEMO, source="text", path=str(tmp_path))))


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.json", "d.jsonl.gz"])
def test_a_corpus_is_any_table_with_its_text_under_a_path(tmp_path: Path, name: str):
    content = {
        "d.csv": 'doc.text\n"One here."\nTwo here.\n',
        "d.json": '[{"doc": {"text": "One here."}}, {"doc": {"text": "Two here."}}]',
    }.get(name, '{"doc": {"text": "One here."}}\n{"doc": {"text": "Two here."}}\n')
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    spec = replace(DEMO, source="jsonl", path=str(tmp_path), field="doc.text", document="file")
    assert list(read_documents(spec)) == ["One here.", "Two here."]
    with pytest.raises(DataError, match=r"corpus\.field"):
        list(read_documents(replace(spec, field="txt")))


def test_sentences_keep_abbreviations_and_drop_fragments():
    document = "Dr. Smith went  home. Ok. He paid 3.50 dollars! = = ="
    assert split_sentences(document, RULES) == ["Dr. Smith went home.", "He paid 3.50 dollars!"]


def test_the_store_gives_back_sentences_and_documents(tmp_path: Path):
    documents = ["First one here. Second one here.", "Too short.", "Çà et là. Third näive one."]
    store = build_sentences(tmp_path / "s", documents, RULES)
    assert [store[i] for i in range(len(store))] == [
        "First one here.", "Second one here.", "Çà et là.", "Third näive one.",
    ]  # fmt: skip
    assert store.documents == 2
    assert [store.document_of(i) for i in range(4)] == [0, 0, 1, 1]
    assert open_sentences(tmp_path / "s").digest == store.digest
    assert build_sentences(tmp_path / "t", documents[::-1], RULES).digest != store.digest


def test_an_empty_or_cut_store_is_said(tmp_path: Path):
    with pytest.raises(DataError, match="no sentence is left after filtering"):
        build_sentences(tmp_path / "e", ["Short."], RULES)
    with pytest.raises(DataError, match="no whole sentence store"):
        open_sentences(tmp_path / "nothing")
    build_sentences(tmp_path / "s", ["First one here. Second one here."], RULES)
    np.save(tmp_path / "s" / "offsets.npy", np.asarray([0, 5]))
    with pytest.raises(DataError, match=r"offsets\.npy differs from its digest"):
        open_sentences(tmp_path / "s")
