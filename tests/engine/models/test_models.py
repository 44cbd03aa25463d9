"""Models load with a known identity, and a conversion is whole or absent."""

from dataclasses import dataclass, replace
from typing import Annotated

import pytest
import torch

from metashot.base.errors import ConfigError, ModelError
from metashot.base.identity import NoEffect
from metashot.engine.models.digests import folder_digest, settings_digest
from metashot.engine.models.loading import LazyLanguageModel, load_model
from metashot.engine.models.sources import HubModel, LocalModel, TinyModel, named_model
from metashot.engine.models.tiny import tiny_model


def same_weights(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def folder(tmp_path):
    model, tokenizer = tiny_model("llama", seed=3)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gptj", "gemma", "gemma2", "t5"])
def test_a_tiny_model_is_fixed_by_its_seed(architecture):
    one, again, other = (tiny_model(architecture, seed=seed)[0] for seed in (0, 0, 1))
    assert same_weights(one, again)
    assert not same_weights(one, other)


def test_a_local_folder_loads_with_equal_weights(folder):
    loaded = load_model(LocalModel("mine", str(folder)))
    assert same_weights(loaded.model, tiny_model("llama", seed=3)[0])
    assert loaded.context_length == 2048
    assert loaded.weights_digest == folder_digest(folder)


def test_the_lazy_model_knows_what_the_loaded_one_is(folder):
    lazy = LazyLanguageModel(LocalModel("mine", str(folder)))
    loaded = lazy.load()
    assert lazy.identity == {
        "weights": loaded.weights_digest,
        "tokenizer": loaded.tokenizer_digest,
        "settings": settings_digest(folder),
        "dtype": "float32",
    }
    assert loaded.identity == lazy.identity
    assert lazy.context_length == loaded.context_length
    assert lazy.load() is loaded
    assert lazy.decode(lazy.encode("\n\n\nA b c\n")) == "\n\n\nA b c\n"


def test_edited_weights_at_the_same_path_are_another_model(folder):
    before = LazyLanguageModel(LocalModel("mine", str(folder)))
    loaded, digest = before.load(), before.weights_digest
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    after = LazyLanguageModel(LocalModel("mine", str(folder)))
    assert after.weights_digest != digest
    assert after.load() is not loaded


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (LocalModel("m", "nowhere"), "holds no config.json"),
        (TinyModel("m", "gtp2"), "unknown tiny architecture 'gtp2'"),
        (TinyModel("m", "gpt2", device="tpu9"), "unknown device 'tpu9'"),
        (HubModel("m", "nobody/nothing"), "cannot get 'nobody/nothing' from the hub or its cache"),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(spec, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_an_unknown_dtype_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"model.dtype: input should be .*, got 'fp8'"):
        TinyModel("m", "gpt2", dtype="fp8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_is_said():
    with pytest.raises(ModelError, match="torch sees no GPU"):
        load_model(TinyModel("m", "gpt2", device="cuda"))


def test_a_folder_without_safetensors_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no \.safetensors file"):
        folder_digest(folder)


def test_names_paths_and_ids(folder):
    assert named_model(str(folder)) == LocalModel(folder.name, str(folder))
    assert named_model("gpt2_xl") == HubModel("gpt2_xl", "openai-community/gpt2-xl")
    assert named_model("someone/some-model") == HubModel("someone/some-model", "someone/some-model")


@pytest.mark.real_model
def test_the_embedded_model_is_smollm2():
    model = LazyLanguageModel(named_model("smollm2_135m"))
    assert model.context_length == 8192
    # Ids of the tokenizer inside the GGUF file: two newlines, one newline, a word.
    assert model.encode("\n\n\nHello") == (1116, 198, 19556)


@dataclass(frozen=True, slots=True)
class WarmModel(TinyModel):
    """A model of one's own whose key changes what it computes."""

    temperature: float = 1.0
    colour: Annotated[str, NoEffect("what a picture shows")] = "red"


def test_a_key_of_an_own_model_decides_unless_it_says_that_it_does_not():
    plain = WarmModel("warm")
    assert TinyModel("tiny").numerics == {"dtype": "float32"}
    assert replace(plain, temperature=2.0).numerics != plain.numerics
    assert replace(plain, colour="blue", name="other", device="cpu").numerics == plain.numerics
