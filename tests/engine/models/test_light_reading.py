"""What is read without torch equals what transformers reads; what it cannot equal is left to transformers."""

import json

import pytest
from transformers import AutoConfig, AutoTokenizer

from metashot.engine.models.chat_template import render_chats
from metashot.engine.models.digests import tokenizer_digest
from metashot.engine.models.sizes import context_length, read_sizes, sizes_of
from metashot.engine.models.sources import TinyModel
from metashot.engine.models.text_tokenizer import read_text_tokenizer
from metashot.engine.models.tiny import tiny_model
from metashot.engine.scoring.plan import ModelSize
from metashot.icl.learning.writing.piece_cache import batch_encoder
from metashot.icl.prompting.begin import begin_ids, bos_ids
from metashot.icl.prompting.boundary import span_encoder

TEXTS = ("a review", "", " Which answer is right?\n", "naïve 北京 \U0001f642")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    model, tokenizer = tiny_model(request.param)
    model.config.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def refuse():
    raise AssertionError("transformers' tokenizer is not asked for")


def assert_same(light, whole):
    assert light.is_fast
    assert whole.is_fast
    assert tokenizer_digest(light) == tokenizer_digest(whole)
    assert begin_ids(light) == begin_ids(whole)
    assert bos_ids(light, "auto") == bos_ids(whole, "auto")
    assert batch_encoder(light)(list(TEXTS)) == batch_encoder(whole)(list(TEXTS))
    for text in TEXTS:
        ids = whole(text, add_special_tokens=False).input_ids
        assert light(text, add_special_tokens=False)["input_ids"] == ids
        assert span_encoder(light)(text) == span_encoder(whole)(text)
        assert light.decode(ids) == whole.decode(ids, clean_up_tokenization_spaces=False)


def test_a_text_tokenizer_encodes_as_that_of_transformers(folder):
    assert_same(read_text_tokenizer(folder, refuse), AutoTokenizer.from_pretrained(folder))


def test_the_tiny_models_have_the_same_tokenizer_with_and_without_torch():
    model = TinyModel("tiny")
    assert_same(model.read_text_tokenizer(), model.read_tokenizer())


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"}),
        ("tokenizer_config.json", {"add_bos_token": True}),
        ("tokenizer_config.json", {"auto_map": {}}),
        ("tokenizer_config.json", {"bos_token": "<new>"}),
        ("tokenizer_config.json", {"extra_special_tokens": ["<new>"]}),
        ("tokenizer.json", {"post_processor": None}),
        ("tokenizer.json", {"truncation": {"max_length": 4}}),
        ("tokenizer.json", {"padding": {"length": 4}}),
    ],
)
def test_a_tokenizer_to_which_transformers_adds_something_is_left_to_it(folder, tmp_path, file, changes):
    for name in ("tokenizer_config.json", "tokenizer.json"):
        content = json.loads((folder / name).read_text())
        (tmp_path / name).write_text(json.dumps(content | (changes if name == file else {})))
    assert read_text_tokenizer(tmp_path, refuse) is None


def test_a_chat_template_is_asked_of_transformers(folder):
    whole = AutoTokenizer.from_pretrained(folder)
    whole.chat_template = "{{ messages[0].content }}!"
    light = read_text_tokenizer(folder, lambda: whole)
    assert light.chat_template == whole.chat_template
    assert render_chats(light, [([{"role": "user", "content": "hi"}], {})]) == ["hi!"]


def test_sizes_are_those_of_the_config(folder):
    config = AutoConfig.from_pretrained(folder)
    sizes = read_sizes(folder)
    assert ModelSize.of(sizes) == ModelSize.of(config)
    assert context_length(sizes) == context_length(config) == 2048


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "t5"])
def test_sizes_of_tiny_models_are_those_of_the_made_ones(architecture):
    model = TinyModel("tiny", path=architecture)
    assert context_length(model.read_sizes()) == context_length(model.read_config())
    if architecture != "t5":
        assert ModelSize.of(model.read_sizes()) == ModelSize.of(model.read_config())


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"model_type": "t5", "d_model": 8},
        {"model_type": "gpt2", "n_embd": 8},
        {
            "model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 8, "vocab_size": 9,
            "auto_map": {},
        },
    ],
)  # fmt: skip
def test_a_config_that_does_not_say_all_is_left_to_transformers(written):
    assert sizes_of(written) is None


def test_a_damaged_config_is_left_to_transformers_too(tmp_path):
    assert read_sizes(tmp_path) is None
    (tmp_path / "config.json").write_text("[1]")
    assert read_sizes(tmp_path) is None


def test_the_digest_of_random_weights_follows_architecture_and_seed():
    digests = {
        TinyModel("tiny", path=path, seed=seed).weights_digest()
        for path in ("gpt2", "llama")
        for seed in (0, 1)
    }
    assert len(digests) == 4
    assert TinyModel("other", path="gpt2", seed=1).weights_digest() in digests
