"""What is loaded is what is named: every file of a model folder is in its identity or has no effect, every tensor is there."""

import json
import os
import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from metashot.base.errors import ModelError
from metashot.engine.generation.prefix import PrefixGenerator
from metashot.engine.generation.request import GenerationRequest, Stopping
from metashot.engine.models.loading import LazyLanguageModel, load_model
from metashot.engine.models.sources import LocalModel
from metashot.engine.models.tiny import tiny_model
from metashot.engine.scoring.plain import score_plain
from metashot.engine.scoring.request import Request

WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
CODE = """from transformers import LlamaForCausalLM
from .scale import SCALE
class Own(LlamaForCausalLM):
    def forward(self, *given, **named):
        out = super().forward(*given, **named)
        out.logits = out.logits * SCALE
        return out
"""
EDITS = {
    WEIGHTS: lambda data: data[:-2] + bytes([data[-2] ^ 0x10, data[-1]]),
    ADAPTER: lambda data: data[:-2] + bytes([data[-2] ^ 0x10, data[-1]]),
    "config.json": lambda data: data.replace(b'"rms_norm_eps": 1e-06', b'"rms_norm_eps": 1e-01'),
    "generation_config.json": lambda data: data.replace(
        b'"eos_token_id": 1', b'"eos_token_id": ' + json.dumps([*range(1, 453, 2)]).encode()
    ),
    "adapter_config.json": lambda data: data.replace(b'"lora_alpha": 64', b'"lora_alpha": 1'),
    "scale.py": lambda data: data.replace(b"1.0", b"0.3"),
    "modeling_own.py": lambda data: data.replace(b"* SCALE", b"/ 7"),
    "tokenizer.json": lambda data: data.replace(b'"add_prefix_space": false', b'"add_prefix_space": true'),
    "tokenizer_config.json": lambda data: data.replace(b"{", b'{"add_prefix_space": true,', 1),
    "chat_template.jinja": lambda data: data + b"?",
    "additional_chat_templates/rag.jinja": lambda data: data + b"?",
    "README.md": lambda data: data + b"read me",
}
"""An edit of each file of the folder."""
WITHOUT_EFFECT = {"README.md"}


def everything(folder):
    """A folder with weights, an adapter beside them, code of its own, templates and settings."""
    model, tokenizer = tiny_model("llama", seed=3)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, lora_alpha=64, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(tiny_model("llama", seed=3)[0], lora).save_pretrained(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "modeling_own.py").write_text(CODE)
    (folder / "scale.py").write_text("SCALE = 1.0\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/rag.jinja").write_text("{{ messages[0].content }}")
    return folder


def said(spec):
    """Ids, templates, scores and greedy answers of a model that is loaded anew."""
    loaded = load_model(spec)
    ids = tuple(loaded.tokenizer("the cat is on the mat", add_special_tokens=False)["input_ids"])
    (score,) = score_plain(loaded.model, [Request(ids[:4], ids[4:])])
    answers = PrefixGenerator(loaded.model, loaded.tokenizer).generate(
        [GenerationRequest(ids)], Stopping(12, ())
    )
    return ids, loaded.tokenizer.chat_template, score.tolist(), answers


def test_every_file_of_a_model_folder_is_in_its_identity_or_has_no_effect(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    whole = everything(tmp_path / "whole")
    files = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()} | {
        "README.md"
    }
    assert files == set(EDITS)
    before = LocalModel("m", str(whole), trust_remote_code=True)
    identity, words = LazyLanguageModel(before).identity, said(before)
    with_effect = set()
    for name, edit in EDITS.items():
        folder = tmp_path / name.replace("/", "_").replace(".", "_")
        shutil.copytree(whole, folder)
        path = folder / name
        path.write_bytes(edited := edit(path.read_bytes() if path.exists() else b""))
        assert not (whole / name).exists() or edited != (whole / name).read_bytes(), name
        after = LocalModel("m", str(folder), trust_remote_code=True)
        missed = LazyLanguageModel(after).identity != identity
        same = said(after) == words
        assert missed or same, f"{name}: other numbers under the same identity"
        assert missed == (name not in WITHOUT_EFFECT), name
        with_effect |= set() if same else {name}
    assert {
        WEIGHTS,
        ADAPTER,
        "config.json",
        "adapter_config.json",
        "scale.py",
        "generation_config.json",
    } <= with_effect


def test_a_folder_moved_touched_or_read_by_another_program_stays_the_same_model(tmp_path):
    whole = everything(tmp_path / "whole")
    identity = LazyLanguageModel(LocalModel("m", str(whole))).identity
    moved = tmp_path / "moved"
    shutil.copytree(whole, moved)
    for name in ("model.onnx", "tf_model.h5", ".gitattributes", "pytorch_model.bin"):
        (moved / name).write_bytes(b"for others")
    os.utime(moved / "config.json", (1, 1))
    assert LazyLanguageModel(LocalModel("m", str(moved))).identity == identity


def test_an_adapter_beside_the_weights_is_the_one_that_is_named(tmp_path):
    """transformers would load it in silence, and tell nothing of what the model's own files lack."""
    whole = everything(tmp_path / "whole")
    alone, apart = tmp_path / "alone", tmp_path / "apart"
    shutil.copytree(whole, alone, ignore=shutil.ignore_patterns("adapter_*"))
    apart.mkdir()
    for path in whole.glob("adapter_*"):
        shutil.copy(path, apart)
    beside, named = LocalModel("m", str(whole)), LocalModel("m", str(alone), adapter=str(apart))
    assert LazyLanguageModel(beside).identity == LazyLanguageModel(named).identity
    assert said(beside) == said(named) != said(LocalModel("m", str(alone)))
    with pytest.raises(ModelError, match="holds an adapter beside its weights"):
        LocalModel("m", str(whole), adapter=str(apart)).read_model()
    without(whole / WEIGHTS, "model.norm.weight")
    with pytest.raises(ModelError, match=r"1 missing \(model\.norm\.weight\)"):
        beside.read_model()


def without(path, *names, **more):
    """Take tensors out of a file, and put others in."""
    tensors = {name: tensor for name, tensor in load_file(path).items() if name not in names} | more
    save_file(tensors, path, metadata={"format": "pt"})


def saved(architecture, folder):
    model, tokenizer = tiny_model(architecture)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gptj", "gemma2", "t5"])
def test_every_tensor_is_missed(architecture, tmp_path):
    whole = saved(architecture, tmp_path / "whole")
    for name in load_file(whole / WEIGHTS):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        without(folder / WEIGHTS, name)
        with pytest.raises(ModelError, match=r"does not hold the tensors of \w+: \d missing") as error:
            LocalModel("m", str(folder)).read_model()
        assert name in str(error.value)


def test_tensors_too_many_of_other_shapes_and_names_are_named(tmp_path):
    whole = saved("llama", tmp_path / "m")
    without(whole / WEIGHTS, **{"foo.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"1 not of this model \(foo\.weight\)"):
        LocalModel("m", str(whole)).read_model()
    without(saved("llama", whole) / WEIGHTS, **{"lm_head.weight": torch.zeros(7, 48)})
    with pytest.raises(ModelError, match=r"1 of another shape \(lm_head\.weight \[7, 48\] for \[453, 48\]\)"):
        LocalModel("m", str(whole)).read_model()
    tensors = load_file(saved("llama", whole) / WEIGHTS)
    save_file({f"x.{name}": one for name, one in tensors.items()}, whole / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"21 missing \(.* and 18 more\), 21 not of this model"):
        LocalModel("m", str(whole)).read_model()


def test_masks_and_rotary_tables_of_older_files_are_no_weights(tmp_path):
    for architecture, names in {
        "gpt2": ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"),
        "gptj": ("transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"),
        "llama": ("model.layers.0.self_attn.rotary_emb.inv_freq",),
    }.items():
        folder = saved(architecture, tmp_path / architecture)
        without(folder / WEIGHTS, **{name: torch.ones(1) for name in names})
        LocalModel("m", str(folder)).read_model()


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], use_dora=True),
        LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[30, 31]),
        IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
    ],
    ids=["lora", "dora and head", "token rows", "ia3"],
)
def test_every_key_of_an_adapter_is_missed_and_a_renamed_one_is_named(config, tmp_path):
    base = saved("llama", tmp_path / "base")
    whole = tmp_path / "whole"
    config.task_type = "CAUSAL_LM"
    get_peft_model(LocalModel("m", str(base)).read_model(), config).save_pretrained(whole)
    assert LocalModel("m", str(base), adapter=str(whole)).read_model() is not None
    for place, (name, tensor) in enumerate(load_file(whole / ADAPTER).items()):
        for kind, more in (
            ("missing", {}),
            ("not of this model", {name.replace("base_model.model.", "x."): tensor}),
        ):
            folder = tmp_path / f"{place} {kind}"
            shutil.copytree(whole, folder)
            without(folder / ADAPTER, name, **more)
            with pytest.raises(
                ModelError, match=rf"model\.adapter: does not hold the tensors of the adapter .*{kind}"
            ):
                LocalModel("m", str(base), adapter=str(folder)).read_model()
