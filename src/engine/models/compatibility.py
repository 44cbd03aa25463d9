"""The one gate: whether weights that lie on a model, or take its place, were made from that model.

It is asked where the digest of both is formed, so before a stored result is looked up, on every path: `checkpoint=`,
`model.adapter=`, `model=adapter`, export, and what a training wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from metashot.base.errors import ModelError
from metashot.base.json_text import read_json
from metashot.engine.models.sizes import read_sizes

BASE_FILE = "base.json"
"""Beside an adapter of our own trainings: name, weights digest and tokenizer digest of the model below it."""
_ARCHITECTURE = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads")


def check_fit(
    folder: Path, *, weights: str | None = None, tokenizer: str | None = None, sizes: Any = None
) -> None:
    """Compare what is known of a model with what a folder says of the model that its weights were trained from.

    Args:
        folder: a checkpoint, an adapter or an export. What says nothing of its base (a PEFT folder of someone
            else's) is compared in its architecture alone.
        weights: digest of the model's weights; an adapter must stand on these.
        tokenizer: digest of its tokenizer.
        sizes: its config, for folders that hold a whole model.

    Raises:
        ModelError: another model; the fact that differs is named.
    """
    base = _base(folder)
    name = base.get("name")
    way_out = f"use model={name}" if name else "name the model that it was trained from: model=..."
    if weights is not None and base.get("weights", weights) != weights:
        raise ModelError(
            str(folder),
            f"is an adapter of {name!r} with weights {base['weights'][:12]}, not of weights {weights[:12]}",
            way_out,
        )
    if tokenizer is not None and base.get("tokenizer", tokenizer) != tokenizer:
        problem = f"was trained with tokenizer {base['tokenizer'][:12]}, not with {tokenizer[:12]}"
        raise ModelError(str(folder), problem, way_out)
    if sizes is not None and (folder / "config.json").is_file():
        own, given = architecture(_config(folder)), architecture(sizes)
        differing = [key for key in own if key in given and own[key] != given[key]]
        if differing:
            told = ", ".join(f"{key} is {own[key]} there, {given[key]} in model=..." for key in differing)
            raise ModelError(str(folder), f"holds weights of another architecture: {told}", way_out)


def architecture(config: Any) -> dict[str, Any]:
    """The facts of a config, as transformers names them, that two models with the same shapes of weights share."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = {key: getattr(text, key, None) for key in _ARCHITECTURE}
    return {key: value for key, value in found.items() if value is not None}


def _config(folder: Path) -> Any:
    from metashot.engine.models.weights import read_config

    return read_sizes(folder) or read_config(folder)


def _base(folder: Path) -> dict[str, str]:
    """What a folder says of its base: from `base.json` of an adapter, or from a checkpoint's manifest."""
    if (folder / BASE_FILE).is_file():
        content = _object(folder / BASE_FILE)
        if "weights" not in content:
            raise ModelError(str(folder / BASE_FILE), "names no weights", "train the adapter again")
        return {key: str(value) for key, value in content.items()}
    if (folder / "manifest.json").is_file():
        identity = _object(folder / "manifest.json").get("identity")
        found = (
            cast(Mapping[str, Any], identity).get("model.tokenizer") if isinstance(identity, dict) else None
        )
        return {"tokenizer": str(found)} if found else {}
    return {}


def _object(path: Path) -> dict[str, Any]:
    try:
        return {**read_json(path)}
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            str(path), f"cannot be read: {error!r}", "train it again, or fetch it again"
        ) from error
