"""PEFT adapters of a base model: whether a folder is one, whether it fits, and both as one model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from metashot.engine.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_FILE = "base.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model of its own."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def merged(model: PreTrainedModel, weights_digest: str, folder: Path) -> PreTrainedModel:
    """`model` with the adapter of `folder` merged into its weights, so that every engine takes it as it is.

    An adapter on a head that is tied to the input embeddings changes the head alone, so the two are parted first.

    Args:
        model: the base, changed in place.
        weights_digest: of the base.
        folder: a PEFT folder; one of ours says which base it belongs to.

    Raises:
        ModelError: an adapter of another base, PEFT is missing, or its files cannot be read.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise ModelError("checkpoint", "needs the package peft", "pip install 'metashot[train]'") from None
    _check_base(weights_digest, folder)
    _part_head(model, folder)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="fan_in_fan_out is set to"
            )  # PEFT decides layer by layer
            both: Any = PeftModel.from_pretrained(cast(nn.Module, model), str(folder))
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            str(folder), f"does not fit this model: {reason}", "choose the model it was made for"
        ) from error
    return cast(PreTrainedModel, both.merge_and_unload())


def _check_base(weights_digest: str, folder: Path) -> None:
    path = folder / BASE_FILE
    if not path.is_file():
        return
    base: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    if base["weights"] != weights_digest:
        raise ModelError(
            str(folder),
            f"is an adapter of {base['name']!r} with weights {base['weights'][:12]}, not of weights {weights_digest[:12]}",
            f"use model={base['name']}",
        )


def _part_head(model: PreTrainedModel, folder: Path) -> None:
    config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    targets = config.get("target_modules") or ()
    inside, outside = cast(nn.Module, model.get_input_embeddings()), model.get_output_embeddings()
    if outside is None or cast(Any, outside).weight is not cast(Any, inside).weight:
        return
    names = {name for name, module in model.named_modules() if module is inside or module is outside}
    touched = {name.rpartition(".")[2] for name in names} & set(
        targets if not isinstance(targets, str) else ()
    )
    if touched:
        cast(Any, outside).weight = nn.Parameter(cast(Any, outside).weight.detach().clone())
        model.config.tie_word_embeddings = False
