"""Which weights and which tokenizer: digests of contents, never of paths or times."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from metashot.engine.errors import ModelError
from metashot.engine.files import sha256_file
from metashot.engine.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS


def folder_digest(folder: Path) -> str:
    """sha256 over config and weight files, by name and content: an edit at the same path changes it."""
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    if len(files) < 2:
        raise ModelError(str(folder), "holds no .safetensors file", "convert the weights to safetensors")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def adapter_digest(base: str, folder: Path) -> str:
    """sha256 over a base's digest and the config and weights of an adapter of it."""
    names = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    lines = [base, *(f"{name}:{sha256_file(folder / name)}" for name in names)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


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
