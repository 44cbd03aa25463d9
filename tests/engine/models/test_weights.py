"""Weights from folders: shards, placement, quantization, adapters, foreign code; each mistake in one line."""

import json

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model

from metashot.base.errors import ModelError
from metashot.engine.models.digests import folder_digest
from metashot.engine.models.loading import LazyLanguageModel, load_model
from metashot.engine.models.sources import AdapterModel, HubModel, LocalModel, named_model
from metashot.engine.models.tiny import tiny_model
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.prefix import PrefixScorer
from metashot.engine.scoring.request import Request

IDS = torch.arange(20)[None] + 30


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    model, tokenizer = tiny_model("llama", seed=3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapter_on(base, folder, config=None):
    """A PEFT folder with random weights; returns it and the logits of the adapted model."""
    model = LocalModel("m", str(base)).read_model()
    torch.manual_seed(0)
    wrapped = get_peft_model(
        model, config or LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    wrapped.save_pretrained(folder)
    with torch.inference_mode():
        return folder, logits(wrapped)


def logits(model):
    with torch.inference_mode():
        return model.eval()(IDS).logits.float()


def test_shards_are_one_model_and_a_missing_one_is_named(base, tmp_path):
    model, tokenizer = tiny_model("llama", seed=3)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    torch.testing.assert_close(logits(load_model(LocalModel("m", str(tmp_path))).model), logits(model))
    sorted(tmp_path.glob("*.safetensors"))[0].unlink()
    with pytest.raises(ModelError, match=r"lacks model-00001-of-0000\d\.safetensors, one of \d shards"):
        load_model(LocalModel("m", str(tmp_path)))


def test_tensors_of_the_older_format_load_and_objects_do_not(base, tmp_path):
    model, tokenizer = tiny_model("llama", seed=3)
    tokenizer.save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = load_model(LocalModel("m", str(tmp_path)))
    torch.testing.assert_close(logits(loaded.model), logits(model))
    assert loaded.weights_digest == folder_digest(tmp_path) != folder_digest(base)
    torch.save({"weight": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load the model"):
        load_model(LocalModel("m", str(tmp_path)))


@pytest.mark.parametrize("implementation", [None, "eager", "sdpa"])
def test_the_library_or_the_user_chooses_the_attention(base, implementation):
    model = LocalModel("m", str(base), attn_implementation=implementation).read_model()
    assert model.config._attn_implementation == (implementation or "sdpa")


def test_a_model_without_sdpa_loads_with_the_shipped_settings(tmp_path):
    """GPT-J, a model of the paper's tables, has no sdpa attention."""
    model, tokenizer = tiny_model("gptj")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(LocalModel("m", str(tmp_path)).read_model()), logits(model))


def test_an_attention_that_does_not_exist(base):
    with pytest.raises(
        ModelError, match=r"cannot load the model: .*check the folder, model\.attn_implementation"
    ):
        LocalModel("m", str(base), attn_implementation="spda").read_model()


def test_a_device_map_places_the_weights(base):
    loaded = load_model(LocalModel("m", str(base), device_map="cpu"))
    assert loaded.device == torch.device("cpu")
    torch.testing.assert_close(logits(loaded.model), logits(tiny_model("llama", seed=3)[0]))
    with pytest.raises(ModelError, match="cannot load the model"):
        load_model(LocalModel("m", str(base), device_map="everywhere"))


@pytest.mark.parametrize(("quantization", "tolerance"), [("int8", 0.1), ("int4", 0.5)])
def test_quantized_weights_score_close_to_whole_ones_and_are_another_model(base, quantization, tolerance):
    whole, quantized = (
        LazyLanguageModel(LocalModel("m", str(base), quantization=how, device="cpu"))
        for how in (None, quantization)
    )
    assert whole.identity != quantized.identity
    assert "quantization" not in whole.identity
    model = quantized.load().model
    kinds = {type(module).__name__ for module in model.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"}
    requests = [Request((40, 41, 42), (43, 44)), Request((40, 41, 42), (45,))]
    scores = PrefixScorer(model).score(requests)
    reference = score_plain(whole.load().model, requests)
    for found, expected in zip(scores, reference, strict=True):
        assert 0 < float((found - expected).abs().max()) < tolerance


def test_an_adapter_is_merged_and_makes_another_model(base, tmp_path):
    folder, expected = adapter_on(base, tmp_path / "lora")
    adapted = LazyLanguageModel(LocalModel("m", str(base), adapter=str(folder)))
    model = adapted.load().model
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert not [name for name, _ in model.named_modules() if "lora" in name]
    assert adapted.weights_digest != LazyLanguageModel(LocalModel("m", str(base))).weights_digest


def test_an_adapter_finds_its_base(base, tmp_path):
    folder, expected = adapter_on(base, tmp_path / "lora")
    for model in (AdapterModel("m", str(folder)), named_model(str(folder))):
        assert isinstance(model, AdapterModel)
        torch.testing.assert_close(logits(load_model(model).model), expected, atol=1e-4, rtol=1e-4)
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert (
        AdapterModel("m", str(moved)).weights_digest()
        == LocalModel("m", str(base), adapter=str(moved)).weights_digest()
    )


def test_four_bit_weights_give_gradients_after_they_have_scored(base):
    """bitsandbytes repacks them for scoring where the processor multiplies in bfloat16, and loses gradients by it."""
    model = LocalModel("m", str(base), quantization="int4", device="cpu").read_model().eval()
    states = model.get_input_embeddings()(IDS).detach()
    before = logits(model)
    PrefixScorer(model).score([Request((40, 41, 42), (43, 44))])
    states.requires_grad_()
    model(inputs_embeds=states).logits[0, -1].square().sum().backward()
    assert float(states.grad[0, 0].abs().max()) > 0
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("quantization", "tolerance"), [("int8", 0.5), ("int4", 3.0)])
def test_an_adapter_on_quantized_weights_stays_beside_them(base, tmp_path, quantization, tolerance):
    folder, expected = adapter_on(base, tmp_path / "lora")
    model = load_model(
        LocalModel("m", str(base), adapter=str(folder), quantization=quantization, device="cpu")
    ).model
    assert [name for name, _ in model.named_modules() if "lora" in name]
    assert float((logits(model) - expected).abs().max()) < tolerance
    (scores,) = PrefixScorer(model).score([Request(tuple(IDS[0, :10].tolist()), tuple(IDS[0, 10:].tolist()))])
    alone = logits(model)[0, 9:-1].log_softmax(-1).gather(1, IDS[0, 10:, None])[:, 0]
    torch.testing.assert_close(scores, alone, atol=1e-3, rtol=1e-3)


def changed(folder, **entries):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_adapters_that_cannot_be(base, tmp_path):
    folder, _ = adapter_on(base, tmp_path / "lora")
    with pytest.raises(
        ModelError, match=r"is a PEFT adapter, no whole model \(use model=adapter model\.path="
    ):
        load_model(LocalModel("m", str(folder)))
    with pytest.raises(ModelError, match="leave one out"):
        AdapterModel("m", str(folder), adapter="other")
    with pytest.raises(ModelError, match=r"model\.adapter: cannot get 'nobody/nothing'"):
        load_model(LocalModel("m", str(base), adapter="nobody/nothing"))
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        load_model(LocalModel("m", str(base), adapter=str(base)))
    changed(folder, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="does not name the model that it was trained on"):
        load_model(AdapterModel("m", str(folder)))
    other, tokenizer = tiny_model("gpt2")
    other.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match=r"does not fit GPT2LMHeadModel"):
        load_model(LocalModel("m", str(tmp_path / "gpt2"), adapter=str(folder)))
    prefix, _ = adapter_on(
        base, tmp_path / "prefix", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(ModelError, match="virtual tokens, which cannot be merged"):
        load_model(AdapterModel("m", str(prefix)))


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_is_not_run_unasked(base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    model, tokenizer = tiny_model("llama", seed=3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "own.py").write_text("raise SystemExit('this was run')\n")
    config = json.loads((folder / "config.json").read_text())
    places = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": places}))
    with pytest.raises(ModelError, match=r"model\.trust_remote_code: .*brings Python code of its own.*=true"):
        load_model(LocalModel("m", str(folder)))
    (folder / "own.py").write_text(CODE)
    trusted = load_model(LocalModel("m", str(folder), trust_remote_code=True)).model
    assert type(trusted).__name__ == "OwnModel"
    torch.testing.assert_close(logits(trusted), logits(model))


def test_only_the_files_that_are_read_are_fetched(monkeypatch, tmp_path):
    asked = []

    def snapshot(path, *, revision, allow_patterns, ignore_patterns):
        asked.append((path, allow_patterns, ignore_patterns))
        if "pytorch_model*.bin" in allow_patterns:
            (tmp_path / "pytorch_model.bin").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    HubModel("m", "someone/x").folder(weights=False)
    assert not any("safetensors" in pattern or "bin" in pattern for pattern in asked[0][1])
    HubModel("m", "someone/x").folder()  # without safetensors the older format is fetched
    assert [("*.safetensors" in allowed, "pytorch_model*.bin" in allowed) for _, allowed, _ in asked[1:]] == [
        (True, False), (False, True),
    ]  # fmt: skip
    assert all("consolidated*" in left_out for _, _, left_out in asked)
