"""Interchange with PEFT: a soft prompt as a prompt-tuning adapter folder, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metashot.base.errors import CheckpointError
from metashot.base.extras import import_extra
from metashot.engine.models.loading import LanguageModel

if TYPE_CHECKING:
    from peft import PeftConfig

WEIGHTS_FILE = "adapter_model.safetensors"


def peft_prompt_model(language_model: LanguageModel, prompt: Tensor) -> Any:
    """A PEFT prompt-tuning model whose virtual tokens are `prompt` [P, d] (trainable)."""
    import_extra("peft", "method")
    from peft import PromptTuningConfig, PromptTuningInit

    shape = _prompt_shape(language_model, prompt)
    return _with_prompt(
        language_model, PromptTuningConfig(**shape, prompt_tuning_init=PromptTuningInit.RANDOM), prompt
    )


def peft_p_tuning_model(language_model: LanguageModel, prompt: Tensor, seed: int) -> Any:
    """A PEFT P-tuning model: a trained MLP of width d, random by `seed`, makes its virtual tokens from `prompt` [P, d].

    Source: Liu et al., GPT Understands, Too, 2021.
    """
    import_extra("peft", "method")
    from peft import PromptEncoderConfig

    shape = _prompt_shape(language_model, prompt)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_prompt(
            language_model, PromptEncoderConfig(**shape, encoder_hidden_size=prompt.shape[1]), prompt
        )


def _prompt_shape(language_model: LanguageModel, prompt: Tensor) -> dict[str, Any]:
    import_extra("peft", "method")
    from peft import TaskType

    return {
        "task_type": TaskType.SEQ_2_SEQ_LM if language_model.is_seq2seq else TaskType.CAUSAL_LM,
        "num_virtual_tokens": prompt.shape[0],
        # PEFT counts encoder and decoder as two by default; our prompts stand before the encoder only.
        "num_transformer_submodules": 1,
    }


def _with_prompt(language_model: LanguageModel, config: PeftConfig, prompt: Tensor) -> Any:
    import_extra("peft", "method")
    from peft import get_peft_model

    model: Any = get_peft_model(language_model.model, config)
    weight: Tensor = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(prompt)
    return model


def export_adapter(folder: Path, language_model: LanguageModel, prompt: Tensor) -> None:
    """Write `prompt` as a PEFT prompt-tuning adapter (safetensors and adapter_config.json)."""
    peft_prompt_model(language_model, prompt).save_pretrained(folder, safe_serialization=True)


def import_adapter(folder: Path, width: int | None = None) -> Tensor:
    """The prompt [P, d] of a PEFT prompt-tuning adapter folder.

    Raises:
        CheckpointError: no adapter there, of another kind, or of another width.
    """
    import_extra("peft", str(folder))
    from peft import PeftConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = PeftConfig.from_pretrained(str(folder))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (ValueError, OSError, RecursionError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            str(folder), f"no PEFT adapter: {error}", "give a folder with adapter_config.json"
        ) from error
    prompt = tensors.get("prompt_embeddings")
    if str(config.peft_type).rsplit(".", 1)[-1] != "PROMPT_TUNING" or prompt is None:
        raise CheckpointError(
            str(folder), f"adapter of kind {config.peft_type}", "give a prompt-tuning adapter"
        )
    if width is not None and prompt.shape[1] != width:
        raise CheckpointError(
            str(folder), f"prompt of width {prompt.shape[1]}, the model has {width}", "choose its own model"
        )
    return prompt.float()
