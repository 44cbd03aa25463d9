"""Which weights and which tokenizer: digests of contents, never of paths or times."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.metadata import PackagePath
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from metashot.engine.errors import ModelError
from metashot.engine.files import sha256_once

_HUB_BLOB = re.compile(r"[0-9a-f]{64}")


def folder_digest(folder: Path) -> str:
    """sha256 over config and weight files, by name and content: an edit at the same path changes it.

    Raises:
        ModelError: no weights, or a file of the hub's cache, where large ones are named by their sha256, is damaged.
    """
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    if len(files) < 2:
        raise ModelError(str(folder), "holds no .safetensors file", "convert the weights to safetensors")
    digest = hashlib.sha256()
    for file in files:
        content = sha256_once(file)
        blob = file.resolve().name
        if _HUB_BLOB.fullmatch(blob) and blob != content:
            raise ModelError(str(file), "differs from its sha256 on the hub", f"remove {file.resolve()}")
        digest.update(f"{file.name}:{content}\n".encode())
    return digest.hexdigest()


def check_packaged(file: PackagePath) -> Path:
    """Where a file of an installed package lies, after its sha256 matched the package's own record.

    Raises:
        ModelError: it is damaged.
    """
    path = Path(str(file.locate()))
    if file.hash is not None and file.hash.mode == "sha256":
        found = base64.urlsafe_b64encode(bytes.fromhex(sha256_once(path))).rstrip(b"=").decode()
        if found != file.hash.value.rstrip("="):
            raise ModelError(str(path), "differs from its package's sha256", "reinstall the package")
    return path


def state_digest(model: torch.nn.Module) -> str:
    """sha256 over a model's state dict: names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over the fast tokenizer's full serialization."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
