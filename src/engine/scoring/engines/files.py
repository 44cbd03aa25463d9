"""The files that an engine of its own loads: a model's folder, and a LoRA folder on top of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metashot.base.errors import ConfigError
from metashot.engine.models.adapters import adapter_folder
from metashot.engine.models.compatibility import check_fit
from metashot.engine.models.sources import FolderModel, ModelConfig, TrainedAdapter


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """What to load."""

    folder: Path
    """In transformers' layout, with tokenizer."""
    adapter: Path | None = None
    """A PEFT LoRA folder."""


def engine_files(spec: ModelConfig) -> EngineFiles:
    """The files of a model.

    Raises:
        ConfigError: the model is no folder, or is quantized by this process.
        ModelError: it is not there, or an adapter is of another base.
    """
    if isinstance(spec, TrainedAdapter):
        base = engine_files(spec.base)
        if base.adapter is not None:
            raise ConfigError(
                "model.adapter", "an adapter on an adapter", "export the checkpoint as a whole model"
            )
        adapter = adapter_folder(spec.path)
        check_fit(adapter, weights=spec.base.weights_digest())
        return EngineFiles(base.folder, adapter)
    if not isinstance(spec, FolderModel):
        raise ConfigError(
            "scorer",
            f"the engine loads model folders, and {spec.name!r} has none",
            "use model=local with a folder, or scorer=prefix",
        )
    if spec.quantization is not None:
        raise ConfigError(
            "model.quantization",
            f"{spec.quantization!r} is done by this process, and the engine loads the weights itself",
            "leave it out and set scorer.arguments.quantization",
        )
    return EngineFiles(spec.folder(), None if spec.adapter is None else adapter_folder(spec.adapter))
