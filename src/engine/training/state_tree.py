"""Nested training state as named tensors plus JSON: what a checkpoint stores instead of a pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch


_TENSOR = "$tensor"
_ITEMS = "$items"
_TUPLE = "$tuple"


def split_tree(tree: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Split nested dicts, lists, tuples, numbers, strings and tensors into (named tensors, JSON value).

    A tensor is named after its path (`optimizer.state.0.exp_avg`). A tensor that occurs twice is stored once,
    since safetensors refuses shared memory and 8-bit optimizers share their code books.

    Raises:
        TypeError: a leaf that is neither a tensor nor JSON.
    """
    import torch

    from metashot.engine.training.sharded import memory_of

    tensors: dict[str, torch.Tensor] = {}
    names: dict[tuple[int, torch.dtype, torch.Size], str] = {}

    def encode(value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            key = (memory_of(value) or id(value), value.dtype, value.shape)
            if key not in names:
                names[key] = path
                tensors[path] = value.detach().contiguous()
            return {_TENSOR: names[key]}
        if isinstance(value, dict):
            return _encode_dict(cast(dict[Any, Any], value), path)
        if isinstance(value, tuple):
            return {_TUPLE: [encode(item, f"{path}.{index}") for index, item in enumerate(value)]}
        if isinstance(value, list):
            return [encode(item, f"{path}.{index}") for index, item in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"{path or 'state'}: a {type(value).__name__} is neither a tensor nor JSON")

    def _encode_dict(value: dict[Any, Any], path: str) -> Any:
        prefix = f"{path}." if path else ""
        encoded = {key: encode(item, f"{prefix}{key}") for key, item in value.items()}
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return encoded
        return {_ITEMS: [[encode(key, path), item] for key, item in encoded.items()]}

    return tensors, encode(tree, "")


def join_tree(tensors: dict[str, torch.Tensor], value: Any) -> Any:
    """The inverse of `split_tree`.

    Raises:
        KeyError: the JSON value names a tensor that is not there.
    """
    if isinstance(value, list):
        return [join_tree(tensors, item) for item in value]
    if not isinstance(value, dict):
        return value
    entries = cast(dict[str, Any], value)
    if _TENSOR in entries:
        return tensors[entries[_TENSOR]]
    if _TUPLE in entries:
        return tuple(join_tree(tensors, item) for item in entries[_TUPLE])
    if _ITEMS in entries:
        return {join_tree(tensors, key): join_tree(tensors, item) for key, item in entries[_ITEMS]}
    return {key: join_tree(tensors, item) for key, item in entries.items()}
