"""Damaged weights are converted again or named, never loaded."""

import base64
import hashlib
import os
import shutil
from importlib.metadata import FileHash, PackagePath, PathDistribution

import pytest
from filelock import FileLock

from metashot.base.errors import ModelError
from metashot.engine.models import gguf
from metashot.engine.models.digests import check_packaged, folder_digest
from metashot.engine.models.gguf_files import gguf_on_disk
from metashot.engine.models.tiny import tiny_model


@pytest.fixture
def folder(tmp_path):
    model, tokenizer = tiny_model("llama", seed=3)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_damaged_conversion_is_made_again(tmp_path, monkeypatch):
    """A flip in the weights, in the tokenizer, in the mark; a cut; a file too many: never loaded."""
    monkeypatch.setenv("METASHOT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"weights")
    source = gguf_on_disk(tmp_path / "model.gguf")
    left = tmp_path / "cache" / "models" / ".killed.tmp"
    left.mkdir(parents=True)
    written = []

    def convert(file, folder):
        written.append(folder)
        for name in ("model.safetensors", "tokenizer.json"):
            (folder / name).write_bytes(f"content of {name}".encode())

    monkeypatch.setattr(gguf, "_write_converted", convert)
    folder = gguf.convert_gguf(source)
    assert not left.exists()
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask()
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, content in whole.items():
        for damaged in (bytes([content[0] ^ 1]) + content[1:], content[:-2]):
            (folder / name).write_bytes(damaged)
            gguf.convert_gguf(source)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    (folder / "generation_config.json").write_text("{}")
    gguf.convert_gguf(source)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert len(written) == 1 + 2 * 3 + 1
    left.mkdir()
    gguf.convert_gguf(source)
    assert not left.exists(), "what another model's killed conversion left"
    left.mkdir()
    with FileLock(left.parent / ".conversion.lock"):
        gguf.convert_gguf(source)
    assert left.exists(), "another process may be converting"


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_damaged_file_of_a_package_is_named(tmp_path):
    file = PackagePath("model.gguf")
    file.dist = PathDistribution(tmp_path / "m.dist-info")
    (tmp_path / "model.gguf").write_bytes(b"weights")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"weights").digest()).rstrip(b"=").decode()
    file.hash = FileHash(f"sha256={digest}")
    assert check_packaged(file).read_bytes() == b"weights"
    (tmp_path / "model.gguf").write_bytes(b"weighty")
    with pytest.raises(ModelError, match="differs from its package's sha256"):
        check_packaged(file)


def test_a_damaged_file_of_the_hub_cache_is_named(folder, tmp_path):
    content = (folder / "model.safetensors").read_bytes()
    blob = tmp_path / hashlib.sha256(content).hexdigest()
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    shutil.copy(folder / "config.json", snapshot)
    (snapshot / "model.safetensors").symlink_to(blob)
    blob.write_bytes(content)
    assert folder_digest(snapshot) == folder_digest(folder)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match="differs from its sha256 on the hub"):
        folder_digest(snapshot)
