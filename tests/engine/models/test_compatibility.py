"""Weights on a model that they were not made from are refused wherever a digest of both is formed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig

from metashot.base.errors import ModelError
from metashot.engine.models.compatibility import BASE_FILE, architecture, check_fit
from metashot.engine.models.loading import LazyLanguageModel, load_model
from metashot.engine.models.sources import AdapterModel, LocalModel, TinyModel, TrainedAdapter
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.engine.training.config import LoraConfig
from metashot.engine.training.low_rank import adapter_weights, with_lora, write_adapter_config

SIZES: dict[str, Any] = {
    "vocab_size": len(tiny_tokenizer()), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip


def folder(root: Path, name: str, config: Any, seed: int = 0) -> LocalModel:
    """A model folder of random weights with the tiny tokenizer."""
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / name)
    tiny_tokenizer().save_pretrained(root / name)
    return LocalModel(name, str(root / name), device="cpu")


def adapter(root: Path, base: LocalModel) -> Path:
    """A LoRA adapter as a training writes it."""
    from safetensors.torch import save_file

    loaded = load_model(base)
    model = with_lora(loaded.model, LoraConfig())
    place = root / f"{base.name}-adapter"
    place.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in adapter_weights(model).items()}
    save_file(weights, place / "adapter_model.safetensors")
    write_adapter_config(model, loaded, place)
    return place


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def llama(root: Path) -> LocalModel:
    return folder(root, "llama", LlamaConfig(**SIZES))


@pytest.fixture(scope="module")
def granite(root: Path) -> LocalModel:
    """Of the llama's shapes, so that nothing fails by itself."""
    return folder(root, "granite", GraniteConfig(**SIZES))


@pytest.fixture(scope="module")
def update(root: Path, llama: LocalModel) -> Path:
    return adapter(root, llama)


@pytest.mark.parametrize("path", ["model.adapter", "checkpoint", "model=adapter", "identity"])
def test_an_adapter_of_other_weights_is_refused_before_anything_stored_is_looked_up(
    root: Path, granite: LocalModel, update: Path, path: str
) -> None:
    if path == "model=adapter":  # its config is edited to name another base
        moved = root / "moved"
        shutil.copytree(update, moved, dirs_exist_ok=True)
        config = json.loads((moved / "adapter_config.json").read_text())
        (moved / "adapter_config.json").write_text(
            json.dumps(config | {"base_model_name_or_path": granite.path})
        )
        model: Any = AdapterModel("moved", str(moved), device="cpu")
    elif path == "checkpoint":
        model = TrainedAdapter("granite", granite, str(update))
    else:
        model = replace(granite, adapter=str(update))
    with pytest.raises(
        ModelError, match=r"is an adapter of 'llama' with weights \w{12}, not of weights \w{12}"
    ):
        _ = LazyLanguageModel(model).identity if path == "identity" else model.weights_digest()


def test_an_adapter_stands_on_its_own_base_by_every_path(llama: LocalModel, update: Path) -> None:
    digests = {
        replace(llama, adapter=str(update)).weights_digest(),
        llama.with_weights(update).weights_digest(),
        AdapterModel("llama", str(update), device="cpu").weights_digest(),
    }
    assert len(digests) == 1


def test_an_adapter_of_someone_else_says_nothing_of_its_base(
    root: Path, granite: LocalModel, update: Path
) -> None:
    foreign = root / "foreign"
    shutil.copytree(update, foreign)
    (foreign / BASE_FILE).unlink()
    assert replace(granite, adapter=str(foreign)).weights_digest()


def test_a_training_on_another_tokenizer_is_refused(root: Path, llama: LocalModel, update: Path) -> None:
    other = folder(root, "other-words", LlamaConfig(**SIZES))
    tiny_tokenizer(["entirely different words for the same number of pieces"]).save_pretrained(other.path)
    with pytest.raises(ModelError, match="was trained with tokenizer"):
        other.with_weights(update)
    assert llama.with_weights(update)


@pytest.mark.parametrize(
    ("config", "fact"),
    [
        (GraniteConfig(**SIZES), "model_type is granite there, llama in model=..."),
        (LlamaConfig(**SIZES | {"num_hidden_layers": 3}), "num_hidden_layers is 3 there, 2 in model=..."),
        (LlamaConfig(**SIZES | {"num_attention_heads": 2}), "num_attention_heads is 2 there, 4 in model=..."),
    ],
    ids=["type", "layers", "heads"],
)
def test_whole_weights_of_another_architecture_are_refused(
    root: Path, llama: LocalModel, config: Any, fact: str, request: pytest.FixtureRequest
) -> None:
    trained = folder(root, f"trained-{request.node.callspec.id}", config)
    with pytest.raises(ModelError) as error:
        llama.with_weights(Path(trained.path))
    assert f"holds weights of another architecture: {fact}" in str(error.value)


def test_whole_weights_need_no_base_that_is_not_here(root: Path, llama: LocalModel) -> None:
    gone = LocalModel("gone", str(root / "nowhere"), device="cpu")
    assert gone.with_weights(Path(llama.path)).weights_digest() == llama.weights_digest()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_a_config_read_with_and_without_transformers_has_the_same_architecture(
    name: str, tmp_path: Path
) -> None:
    tiny = TinyModel("tiny", name)
    tiny.read_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert architecture(tiny.read_config()) == architecture(tiny.read_sizes())
    check_fit(tmp_path, sizes=tiny.read_sizes())


def test_four_bit_weights_on_disk_are_one_model_with_and_without_the_key(
    root: Path, llama: LocalModel
) -> None:
    pytest.importorskip("bitsandbytes")
    quantized = replace(llama, quantization="int4").read_model()
    quantized.save_pretrained(root / "int4")
    tiny_tokenizer().save_pretrained(root / "int4")
    plain = LocalModel("int4", str(root / "int4"), device="cpu")
    told = replace(plain, quantization="int4")
    assert LazyLanguageModel(plain).identity == LazyLanguageModel(told).identity
    assert plain.places_itself
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        logits = [load_model(one).model(input_ids=ids).logits for one in (plain, told)]
    torch.testing.assert_close(logits[0], logits[1], atol=0, rtol=0)
    with pytest.raises(ModelError, match=r"model.quantization: int8, but the weights are int4 on disk"):
        _ = replace(plain, quantization="int8").numerics
