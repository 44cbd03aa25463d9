"""What counting and planning need of a model's config, read from `config.json` without transformers where it says all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

_LLAMA = (
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
)
_NAMES: dict[str, Mapping[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "max_position_embeddings": "n_positions",
        "vocab_size": "vocab_size",
    },
    "llama": dict(zip(_LLAMA, _LLAMA, strict=True)),
}
"""Transformers' common names of sizes, and how a model type's `config.json` calls them."""


def context_length(config: Any) -> int:
    """Longest sequence of a transformers config, in tokens (GPT-2 says `n_positions`; a multimodal one nests it)."""
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    for key in ("max_position_embeddings", "n_positions"):
        value = getattr(config, key, None)
        if value and int(value) > 0:  # XLNet says -1 for any length
            return int(value)
    return 1 << 30


def longrope_length(config: Any) -> int | None:
    """Tokens up to which a longrope model takes its short factors; None for models that have no such two sets."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    rope: Any = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) != "longrope":
        return None
    length = rope.get("original_max_position_embeddings") or getattr(
        text, "original_max_position_embeddings", None
    )
    return int(length) if length else None


_ATTENTION_DROPOUTS = ("attn_pdrop", "attention_dropout", "attention_probs_dropout_prob")
_RESIDUAL_DROPOUTS = (
    "resid_pdrop",
    "resid_dropout",
    "residual_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "dropout",
)


def attention_dropout(config: Any) -> float:
    """Probability with which a text config drops attention weights in training; 0 where it knows no such key."""
    return _first(config, _ATTENTION_DROPOUTS)


def residual_dropout(config: Any) -> float:
    """The same for what attention and MLP add to the residual stream."""
    return _first(config, _RESIDUAL_DROPOUTS)


def _first(config: Any, keys: Sequence[str]) -> float:
    return next((float(value) for key in keys if (value := getattr(config, key, None))), 0.0)


def sizes_of(written: Mapping[str, Any]) -> SimpleNamespace | None:
    """The content of a `config.json` under transformers' common names.

    None where only transformers knows: another model type, code of its own, or a size that is not written out.
    """
    names = _NAMES.get(str(written.get("model_type")))
    if names is None or "auto_map" in written or any(not written.get(theirs) for theirs in names.values()):
        return None
    sizes = SimpleNamespace(**written)
    for common, theirs in names.items():
        setattr(sizes, common, written[theirs])
    sizes.get_text_config = lambda decoder=False: sizes
    return sizes


def read_sizes(folder: Path) -> SimpleNamespace | None:
    """`sizes_of` the `config.json` in a folder; None also where it cannot be read."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return sizes_of(cast(dict[str, Any], content)) if isinstance(content, dict) else None
