"""Which models the engine walks itself."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from metashot.engine.scoring.architecture import Architecture, Factory
from metashot.engine.scoring.gpt import GPT2, GPTJ
from metashot.engine.scoring.llama import Llama

_FACTORIES: dict[str, Factory] = {
    "gpt2": GPT2,
    "gptj": GPTJ,
    "llama": Llama,
    "mistral": Llama,
    "qwen2": Llama,
    "qwen3": Llama,
    "gemma": Llama,
    "gemma2": Llama,
}

_STABLE_ROPES = {"default", "linear", "llama3", "yarn"}
"""Rotary types whose factors depend on the position alone; others change with the sequence's length."""


def find_architecture(model: PreTrainedModel) -> Architecture | str:
    """The walk for a model, or in words why there is none."""
    config: Any = model.config
    if config.is_encoder_decoder:
        return f"{config.model_type} is an encoder-decoder model"
    if config.model_type not in _FACTORIES:
        return f"no shared-prefix engine for model type {config.model_type!r}"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in _STABLE_ROPES:
        return f"rotary positions of type {rope!r} depend on the sequence's length"
    if getattr(config, "add_cross_attention", False):
        return "the model has cross-attention"
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        return f"{type(model).__name__} has no linear output layer"
    foreign = {type(module) for module in model.modules() if not _is_plain(module)}
    if foreign:
        return f"the model holds foreign modules ({', '.join(sorted(kind.__name__ for kind in foreign))})"
    if len(set((getattr(model, "hf_device_map", None) or {"": 0}).values())) > 1:
        return "the model is spread over several devices"
    return _FACTORIES[config.model_type](model)


def _is_plain(module: nn.Module) -> bool:
    """False for adapters, quantized layers and the like, whose weights are not what they seem."""
    return type(module).__module__.startswith(("transformers.", "torch.nn."))
