"""Vectors of sentences are computed once for each encoder and list, and never read from a damaged file."""

import numpy as np
import pytest

from metashot.engine.models import sentence_encoder
from metashot.engine.models.sentence_encoder import load_keeping_encoder


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Lists that an encoder was given; its vectors are the lengths of sentences."""
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    lists: list[list[str]] = []

    def load(name):
        def embed(sentences):
            lists.append(sentences)
            return np.array([[len(one), 1] for one in sentences], dtype=np.float32)

        return embed

    monkeypatch.setattr(sentence_encoder, "load_sentence_encoder", load)
    return lists


def test_a_list_is_encoded_once_whoever_asks(asked):
    first = load_keeping_encoder("an/encoder")(["one", "three"])
    again = load_keeping_encoder("an/encoder")(["one", "three"])
    assert first.tolist() == again.tolist() == [[3, 1], [5, 1]]
    load_keeping_encoder("an/encoder")(["three", "one"])
    load_keeping_encoder("another/encoder")(["one", "three"])
    assert asked == [["one", "three"], ["three", "one"], ["one", "three"]]


def test_a_changed_file_of_the_encoder_is_another_encoder(asked, tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    for weights in (b"a", b"b"):
        (folder / "model.safetensors").write_bytes(weights)
        load_keeping_encoder(str(folder))(["one"])
    assert len(asked) == 2


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: content[:40] + b"x" + content[41:], lambda _: b""],
)
def test_a_damaged_file_is_computed_again(asked, tmp_path, damage):
    expected = load_keeping_encoder("an/encoder")(["one"]).tolist()
    (kept,) = (tmp_path / "cache" / "vectors").iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    assert load_keeping_encoder("an/encoder")(["one"]).tolist() == expected
    assert load_keeping_encoder("an/encoder")(["one"]).tolist() == expected
    assert len(asked) == 2
