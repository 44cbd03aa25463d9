"""Dropout of attention weights: what a config says of it, and another probability for a loaded model."""

from __future__ import annotations

from typing import Any

from torch import nn

from metashot.base.errors import ConfigError

_PLACES = ("attn_dropout", "attention_dropout", "attn_dropout_p")
"""How attention modules call it: a probability, or a `Dropout` module."""


def set_attention_dropout(model: nn.Module, probability: float) -> None:
    """Let the attention layers of `model` drop weights with this probability while they train; its config stays.

    Raises:
        ConfigError: no attention layer of the architecture has a place for it.
    """
    layers = [module for module in model.modules() if "Attention" in type(module).__name__]
    if not any([_set(layer, probability) for layer in layers]):
        raise ConfigError(
            "trainer.attention_dropout",
            f"{probability}, but {type(model).__name__} has no dropout of attention weights to set",
            "leave it null",
        )


def _set(layer: nn.Module, probability: float) -> bool:
    """Whether the layer has a place for it, which now holds `probability`."""
    places = [name for name in _PLACES if hasattr(layer, name)]
    # BART's descendants call it plainly `dropout`; as a module that name is the dropout behind the attention.
    if not places and isinstance(getattr(layer, "dropout", None), (int, float)):
        places = ["dropout"]
    for name in places:
        place: Any = getattr(layer, name)
        if isinstance(place, nn.Dropout):
            place.p = probability
        else:
            setattr(layer, name, probability)
    return bool(places)
