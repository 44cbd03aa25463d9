"""Every meta-task format against an example written by hand, to the id and to the character."""

from __future__ import annotations

import numpy as np
import pytest

from metashot.base.errors import ConfigError, DataError
from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.meta.drawing.draws import Record
from metashot.metaprompt.meta.drawing.formats import FormatRenderer, RenderRules, bind_format, load_format
from metashot.metaprompt.template import word_id

PAIR = Record({"first": "water boat", "second": "oven dough"}, (), 1)
CHOICE = Record({"anchor": "water boat"}, ("oven", "fish", "king", "rain"), 1)
CLUSTERS = Record({"anchor": "water boat"}, (7, 0, 3, 5), 2)
SENTINEL, CLOSING = "<extra_id_0>", "<extra_id_1>"


def bind(name: str, model: LanguageModel, **changes: object) -> FormatRenderer:
    defaults: dict[str, object] = {
        "max_tokens": 412, "bare_pieces": False, "released_truncation": False, "third_position": False,
    }  # fmt: skip
    rules = RenderRules(**(defaults | changes))  # pyright: ignore[reportArgumentType]
    return bind_format(load_format(name), model.tokenizer, rules, is_seq2seq=model.is_seq2seq)


def ids(model: LanguageModel, *pieces: str | int) -> tuple[int, ...]:
    """Pieces tokenized one by one; an integer is an id already."""
    encoded: list[int] = []
    for piece in pieces:
        encoded += (
            [piece] if isinstance(piece, int) else model.tokenizer.encode(piece, add_special_tokens=False)
        )
    return tuple(encoded)


@pytest.mark.parametrize(("name", "answer"), [("nsp", "maybe"), ("scsp", "no")])
def test_pair_formats_of_an_encoder_decoder(t5: LanguageModel, name: str, answer: str):
    made = bind(name, t5).example(PAIR, support=True)
    assert made.input_ids == ids(t5, "water boat", SENTINEL, "oven dough")
    assert made.target_ids == ids(t5, SENTINEL, f" {answer}")


@pytest.mark.parametrize("name", ["nss", "scss"])
def test_choice_formats_of_an_encoder_decoder(t5: LanguageModel, name: str):
    made = bind(name, t5).example(CHOICE, support=True)
    assert made.input_ids == ids(
        t5, "water boat", "?", " A", ".", "oven", ".", " B", ".", "fish", ".", " C", ".", "king", ".",
        " D", ".", "rain", ".", "?", "The correct one is ", SENTINEL,
    )  # fmt: skip
    assert made.target_ids == ids(t5, SENTINEL, " B")


def test_cluster_classification_of_an_encoder_decoder(t5: LanguageModel):
    """Cluster c is the pseudo-token -c-1."""
    made = bind("scc", t5).example(CLUSTERS, support=True)
    assert made.input_ids == ids(
        t5, "water boat", "?", " A", ".", -8, ".", " B", ".", -1, ".", " C", ".", -4, ".",
        " D", ".", -6, ".", "?", "The correct one is ", SENTINEL,
    )  # fmt: skip
    assert made.target_ids == ids(t5, SENTINEL, " C")


@pytest.mark.parametrize(
    ("name", "record", "text", "answer"),
    [
        ("nsp", PAIR, "water boat Next: oven dough Does it follow? Answer:", " maybe"),
        ("scsp", PAIR, "water boat And: oven dough Same topic? Answer:", " no"),
        ("nss", CHOICE, "water boat? A. oven. B. fish. C. king. D. rain.? The correct one is", " B"),
        ("scss", CHOICE, "water boat? A. oven. B. fish. C. king. D. rain.? The correct one is", " B"),
    ],
)
def test_text_of_a_decoder_only_model(gpt2: LanguageModel, name: str, record: Record, text: str, answer: str):
    made = bind(name, gpt2).example(record, support=True)
    assert gpt2.tokenizer.decode(made.input_ids) == text
    assert gpt2.tokenizer.decode(made.target_ids) == answer


def test_cluster_classification_of_a_decoder_only_model(gpt2: LanguageModel):
    made = bind("scc", gpt2).example(CLUSTERS, support=True)
    assert [i for i in made.input_ids if i < 0] == [-8, -1, -4, -6]
    assert gpt2.tokenizer.decode([i for i in made.input_ids if i >= 0]) == (
        "water boat? A.. B.. C.. D..? The correct one is"
    )


def test_the_closing_sentinel_is_a_released_oddity_of_support_targets(t5: LanguageModel):
    renderer = bind("nsp", t5, third_position=True)
    assert renderer.example(PAIR, support=True).target_ids == ids(t5, SENTINEL, " maybe", CLOSING)
    assert renderer.example(PAIR, support=False).target_ids == ids(t5, SENTINEL, " maybe")
    assert bind("scc", t5, third_position=True).example(CLUSTERS, support=True).target_ids == ids(
        t5, SENTINEL, " C"
    )


def test_bare_label_pieces_are_a_released_oddity(t5: LanguageModel):
    """`A` without its word start; nsp's words are word-initial in the released data too."""
    vocabulary = t5.tokenizer.get_vocab()
    assert bind("scss", t5, bare_pieces=True).label_ids == tuple(vocabulary[letter] for letter in "ABCD")
    assert bind("nsp", t5, bare_pieces=True).label_ids == bind("nsp", t5).label_ids
    assert bind("scss", t5).label_ids == tuple(word_id(t5.tokenizer, letter, "x") for letter in "ABCD")


@pytest.mark.parametrize("name", ["nsp", "nss", "scsp", "scss", "scc"])
def test_truncation_keeps_the_question(language_model: LanguageModel, name: str):
    long = "water boat fish " * 60
    record = {
        "nsp": Record({"first": long, "second": long}, (), 0), "scsp": Record({"first": long, "second": long}, (), 0),
        "nss": Record({"anchor": long}, (long,) * 4, 3), "scss": Record({"anchor": long}, (long,) * 4, 3),
        "scc": Record({"anchor": long}, (0, 1, 2, 3), 3),
    }[name]  # fmt: skip
    renderer = bind(name, language_model, max_tokens=80)
    context = renderer.context(record)
    assert len(context) <= 80
    tokenizer = language_model.tokenizer
    if language_model.is_seq2seq:
        assert tokenizer.convert_tokens_to_ids(SENTINEL) in context
    else:
        ending = {"nsp": "follow? Answer:", "scsp": "topic? Answer:"}.get(name, "? The correct one is")
        assert tokenizer.decode([i for i in context if i >= 0]).endswith(ending)
    if name in ("nss", "scss"):
        assert set(renderer.label_ids) <= set(context)


def test_released_nss_truncation_loses_the_question(t5: LanguageModel):
    record = Record({"anchor": "water boat"}, ("fish " * 40,) * 4, 0)
    sentinel = t5.tokenizer.convert_tokens_to_ids(SENTINEL)
    assert sentinel not in bind("nss", t5, max_tokens=60, released_truncation=True).context(record)
    assert sentinel in bind("nss", t5, max_tokens=60).context(record)


def test_a_verbalizer_of_several_tokens_is_named_with_its_pieces(gpt2: LanguageModel):
    with pytest.raises(DataError, match=r"verbalizer 'unquestionably' is \d+ tokens.*: Ġ"):
        word_id(gpt2.tokenizer, "unquestionably", "formats/x.yaml")


def test_an_unknown_format_gets_a_suggestion():
    with pytest.raises(ConfigError, match="unknown format 'scs'"):
        load_format("scs")


def test_counts_of_the_published_formats():
    """Section 3: 16 + 16 examples; support and query batches; four options."""
    table = {name: load_format(name) for name in ("nsp", "nss", "scsp", "scss", "scc")}
    assert all((f.support, f.query) == (16, 16) for f in table.values())
    assert {n: (f.support_batch, f.query_batch) for n, f in table.items()} == {
        "nsp": (16, 8), "nss": (8, 4), "scsp": (16, 8), "scss": (8, 4), "scc": (16, 8),
    }  # fmt: skip
    assert np.unique([f.options for f in table.values()]).tolist() == [0, 4]
