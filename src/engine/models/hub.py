"""Snapshots of the Hugging Face hub: only the files that are read."""

from __future__ import annotations

from pathlib import Path

from metashot.base.errors import ModelError

_SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "merges.txt", "vocab*")
_LEFT_OUT = ("*/*", "consolidated*")
"""Copies of the weights for other programs."""


def hub_folder(path: str, revision: str | None = None, *, weights: bool = True, code: bool = False) -> Path:
    """The snapshot of a model in the hub's cache, downloaded if it is not there; safetensors where there are any.

    Args:
        path: hub id.
        revision: hub revision, or None for the default branch.
        weights: False fetches only config and tokenizer.
        code: also Python files.

    Raises:
        ModelError: neither the hub nor its cache has it.
    """
    small = [*_SMALL, *(["*.py"] if code else [])]
    otherwise = "use model=local model.path=<folder>"
    if not weights:
        return _snapshot(path, revision, small, "model.path", otherwise)
    folder = _snapshot(path, revision, [*small, "*.safetensors"], "model.path", otherwise)
    if any(folder.glob("*.safetensors")):
        return folder
    return _snapshot(path, revision, [*small, "pytorch_model*.bin"], "model.path", otherwise)


def hub_adapter(path: str) -> Path:
    """The snapshot of an adapter.

    Raises:
        ModelError: neither the hub nor its cache has it.
    """
    return _snapshot(path, None, ["adapter_*"], "model.adapter", "give a folder")


def _snapshot(path: str, revision: str | None, patterns: list[str], where: str, otherwise: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                path, revision=revision, allow_patterns=patterns, ignore_patterns=list(_LEFT_OUT)
            )
        )
    except Exception as error:
        raise ModelError(
            where,
            f"cannot get {path!r} from the hub or its cache: {type(error).__name__}",
            f"check the id and the network, fill the cache beforehand, or {otherwise}",
        ) from error
