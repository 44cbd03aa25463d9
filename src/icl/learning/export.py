"""A checkpoint as others read it: a transformers or PEFT folder with a card, or the authors' `model.pt`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metashot.base.errors import ConfigError
from metashot.base.files import write_atomic
from metashot.engine.models.adapters import is_adapter
from metashot.engine.models.exports import CARD, exporting
from metashot.engine.models.loading import load_model
from metashot.engine.models.sources import ModelConfig
from metashot.engine.training.checkpoint import MANIFEST, STATE_TENSORS, STATE_VALUES, verify
from metashot.icl.released import RELEASED_FILE, load_released_checkpoint

_SHAPING = (
    "n_head",
    "activation_function",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
)
"""What of a GPT-2's config decides its scores and cannot be told from the shapes of its weights."""
_OURS = (MANIFEST, STATE_TENSORS, STATE_VALUES)


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """`export` keys."""

    format: Literal["as_is", "transformers", "released"] = "as_is"
    """`as_is` keeps a LoRA update a PEFT folder and whole weights a transformers folder; `transformers`
    merges a LoRA update into its base; `released` writes the authors' `model.pt` (GPT-2 only)."""


def export_checkpoint(checkpoint: Path, model: ModelConfig, settings: ExportConfig, target: Path) -> Path:
    """Write the weights of a checkpoint, with tokenizer and card, and without what only a resumed training needs.

    Args:
        checkpoint: a folder of ours.
        model: the model below a LoRA update.
        settings: which form.
        target: a folder that does not exist yet, or an earlier export.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ConfigError: `target` exists and is no export, or the form does not fit the architecture.
        OutputError: the folder cannot be written.
    """
    manifest = verify(checkpoint)
    with exporting(target) as folder:
        if settings.format == "released":
            _write_released(checkpoint, model, folder)
        elif settings.format == "transformers" and is_adapter(checkpoint):
            loaded = load_model(model.with_weights(checkpoint))
            loaded.model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
        else:
            for path in sorted(checkpoint.iterdir()):
                if path.name not in _OURS:
                    shutil.copy2(path, folder / path.name)
        write_atomic(folder / CARD, card(manifest, model.name))
    return target


def _write_released(checkpoint: Path, model: ModelConfig, target: Path) -> None:
    """The authors' layout: a state dict of GPT-2 with the head under its own name."""
    import torch
    from transformers import GPT2LMHeadModel

    loaded = load_model(model.with_weights(checkpoint)).model
    if not isinstance(loaded, GPT2LMHeadModel):
        raise ConfigError(
            "export.format",
            f"released files hold GPT-2, not {type(loaded).__name__}",
            "use export.format=as_is",
        )
    torch.save(loaded.state_dict(), target / RELEASED_FILE)
    read = load_released_checkpoint(target / RELEASED_FILE).config.to_dict()
    own = loaded.config.to_dict()
    if differing := [key for key in _SHAPING if read[key] != own[key]]:
        told = ", ".join(f"{key} is {own[key]}, and would be read as {read[key]}" for key in differing)
        raise ConfigError(
            "export.format", f"released files hold weights alone: {told}", "use export.format=as_is"
        )


def card(manifest: dict[str, Any], model: str) -> str:
    """The model card: what it was trained for, from and on, and how to prompt it."""
    method, identity = manifest["method"], manifest["identity"]
    shots = method.get("k", 0)
    channel = method.get("objective") == "channel"
    one = "<label>\n<input>" if channel else "<input>\n<label>"
    prompt = "\n\n\n".join([one] * min(shots, 1) + (["... more demonstrations ..."] if shots > 1 else []))
    query = "<option>\n" if channel else "<input>\n"
    scored = "the input after each option" if channel else "each option after the input"
    facts = {key: identity[key] for key in sorted(identity) if not isinstance(identity[key], dict | list)}
    return "\n".join(
        [
            "---",
            f"base_model: {model}",
            "library_name: transformers",
            "tags: [metaicl, in-context-learning]",
            "---",
            "",
            f"# {method.get('name', 'meta-trained model')}, step {manifest['step']}",
            "",
            f"Meta-trained from `{model}` with metashot: {method.get('objective', 'direct')} objective, {shots} "
            f"demonstrations, {method.get('layout', 'newline')} layout.",
            "",
            "## How to prompt it",
            "",
            "Demonstrations, then the query, tokenized piece by piece without special tokens:",
            "",
            "```",
            *([prompt, ""] if prompt else []),
            query.rstrip("\n"),
            "```",
            "",
            f"The answer is the option with the least mean negative log-likelihood of {scored}.",
            "",
            "## What decided the weights",
            "",
            "```json",
            json.dumps(facts, indent=2, default=str),
            "```",
            "",
        ]
    )
