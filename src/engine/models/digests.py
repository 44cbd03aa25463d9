"""Which weights and which tokenizer: digests of contents, never of paths or times."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.metadata import PackagePath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metashot.base.errors import ModelError
from metashot.base.files import sha256_once
from metashot.base.json_text import read_json

if TYPE_CHECKING:
    from metashot.engine.models.text_tokenizer import AnyTokenizer

_HUB_BLOB = re.compile(r"[0-9a-f]{64}")
_ADAPTER = "adapter_model"
"""Beside a model's own files: the weights of an adapter, which `engine.models.adapters` reads."""
_WEIGHTS = {
    ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".npz", ".zip",
}  # fmt: skip
_UNREAD = {".md", ".lock", ".log", ".png", ".jpg", ".pdf"}
"""Endings of files that are for people and other programs."""
_OURS = {"metashot.json", "complete", "base.json"}
"""Seals, which hold digests of the other files."""


def weight_files(folder: Path) -> list[Path]:
    """The files that weights are read from: safetensors, or else the older PyTorch format (tensors only).

    Raises:
        ModelError: none, or a shard that the index names is missing.
    """
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        found = sorted(path for path in folder.glob(pattern) if path.stem != _ADAPTER)
        if found:
            _check_shards(folder, {path.name for path in found})
            return found
    raise ModelError(str(folder), "holds no .safetensors file", "convert the weights to safetensors")


def _check_shards(folder: Path, present: set[str]) -> None:
    for index in folder.glob("*.index.json"):
        if index.name.removesuffix(".index.json") in present:
            continue
        try:
            named = {str(name) for name in read_json(index)["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"is no index of weight files ({error or type(error).__name__})"
            raise ModelError(str(index), problem, "fetch the folder again") from None
        wanted = {name for name in named if Path(name).suffix in {Path(one).suffix for one in present}}
        if wanted - present:
            raise ModelError(
                str(folder),
                f"lacks {min(wanted - present)}, one of {len(wanted)} shards",
                "fetch the folder again",
            )


def folder_digest(folder: Path, *, code: bool = False) -> str:
    """sha256 over config and weight files, by name and content: an edit at the same path changes it.

    Args:
        folder: in transformers' layout.
        code: also over its Python files, which then make the model.

    Raises:
        ModelError: no weights, or a file of the hub's cache, where large ones are named by their sha256, is damaged.
    """
    modules = sorted(folder.rglob("*.py")) if code else []
    return _digest_of_files(folder, [*sorted([*weight_files(folder), folder / "config.json"]), *modules])


def settings_digest(folder: Path) -> str:
    """sha256 over the files beside configs, weights and code: tokenizer, chat template, generation config and the like.

    Which of them transformers reads depends on the model, so each counts that is not known for weights of another
    format or for a text to people. An edit without effect costs a computation; a missed one would cost the truth.
    """
    beside = (path for path in folder.iterdir() if path.is_file() and _may_be_read(path))
    templates = (folder / "additional_chat_templates").glob("*.jinja")
    return _digest_of_files(folder, sorted([*beside, *templates]))


def _may_be_read(path: Path) -> bool:
    known = path.name in _OURS | {"config.json", "adapter_config.json"} or path.name.startswith(".")
    return not known and path.suffix not in {".py"} | _WEIGHTS | _UNREAD


def _digest_of_files(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = sha256_once(file)
        blob = file.resolve().name
        if _HUB_BLOB.fullmatch(blob) and blob != content:
            raise ModelError(str(file), "differs from its sha256 on the hub", f"remove {file.resolve()}")
        digest.update(f"{file.relative_to(folder).as_posix()}:{content}\n".encode())
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


def tokenizer_digest(tokenizer: AnyTokenizer) -> str:
    """sha256 over the fast tokenizer's full serialization."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole: Any = tokenizer
    text = backend.to_str() if backend is not None else repr(sorted(whole.get_vocab().items()))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
