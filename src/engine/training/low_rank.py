"""LoRA through PEFT: where the updates go, and the adapter's tensors and config.

A frozen base may be in bfloat16 or quantized (QLoRA); the updates are float32 all the same.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from metashot.base.errors import ConfigError
from metashot.base.extras import import_extra
from metashot.base.files import write_json
from metashot.engine.models.compatibility import BASE_FILE
from metashot.engine.models.loading import LanguageModel
from metashot.engine.training.config import LoraConfig
from metashot.engine.training.sharded import sharded_like


def with_lora(model: PreTrainedModel, lora: LoraConfig | None) -> PreTrainedModel:
    """`model` below PEFT's wrapper with fresh updates; itself without `lora`.

    Raises:
        ConfigError: a setting outside its rule, layers that the model does not have, or PEFT is missing.
    """
    if lora is None:
        return model
    import_extra("peft", "trainer.lora")
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    matrices = [] if lora.target_modules else expert_matrices(model, lora.last_layers)
    if matrices and lora.dropout:
        raise ConfigError(
            "trainer.lora.dropout",
            f"{lora.dropout} cannot be applied to matrices of experts such as {matrices[0]}",
            "set it to 0, or name trainer.lora.target_modules without them",
        )
    config = PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or linear_layers(model),
        target_parameters=matrices or None,
        layers_to_transform=_last_layers(lora.last_layers, model),
        # GPT-2 stores its projections transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            # `engine.models.adapters.with_adapter` parts a tied head from the embeddings before it merges.
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
            # PEFT decides this layer by layer, and asks an old question of transformers.
            for message in (
                "fan_in_fan_out is set to",
                "`is_gradient_checkpointing` is deprecated",
                "The following (rank|alpha)_pattern keys",
            ):
                warnings.filterwarnings("ignore", message=message)
            return cast(PreTrainedModel, get_peft_model(model, config))
    except ValueError as error:
        given = ", ".join(lora.target_modules)
        raise ConfigError(
            "trainer.lora.target_modules",
            f"{given or 'empty'}: {str(error).splitlines()[0]}",
            "leave it empty for all linear layers" if given else "name layers that the model has",
        ) from error


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of all linear layers but the vocabulary projection, and those that PEFT refuses."""
    head = model.get_output_embeddings()
    kinds = (nn.Linear, Conv1D)
    named = {
        name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head
    }
    refused = _REFUSED if model.config.get_text_config().model_type in _MAMBA else set[str]()
    return sorted({name.rpartition(".")[2] for name in named} - refused)


_MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
_REFUSED = {"out_proj", "conv1d", "dt_proj"}
"""Layers of Mamba's mixers whose weights its kernels read past any update; PEFT refuses the first two for these types."""


def expert_matrices(model: PreTrainedModel, last_layers: int | None = None) -> list[str]:
    """Names of the stacked matrices [experts, in, out] that mixtures of experts hold in place of linear layers.

    Args:
        model: not wrapped yet.
        last_layers: only those of so many of the last transformer layers; None for all.
    """
    owners = dict(model.named_modules())
    layers = _last_layers(last_layers, model)
    found: list[str] = []
    for name, parameter in model.named_parameters():
        owner, _, own = name.rpartition(".")
        if (
            parameter.dim() != 3
            or "expert" not in name
            or (own == "weight" and owners[owner].__module__.startswith("torch."))
        ):
            continue
        numbers = [int(part) for part in owner.split(".") if part.isdigit()]
        if layers is None or (numbers and numbers[0] in layers):
            found.append(name)
    return found


def _last_layers(count: int | None, model: PreTrainedModel) -> list[int] | None:
    layers = int(model.config.get_text_config().num_hidden_layers)
    if count is None:
        return None
    if not 1 <= count <= layers:
        raise ConfigError(
            "trainer.lora.last_layers", f"{count} of {layers} layers", f"1 to {layers}, or null for all"
        )
    return list(range(layers - count, layers))


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The updates alone under PEFT's names."""
    import_extra("peft", "trainer.lora")
    from peft import get_peft_model_state_dict

    # Told not to copy a whole vocabulary matrix: only its update is trained.
    state = get_peft_model_state_dict(cast(Any, model), save_embedding_layers=False)
    return dict(state)


def put_adapter_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put back what `adapter_weights` returned.

    Raises:
        ValueError: tensors of another adapter.
    """
    import_extra("peft", "trainer.lora")
    from peft import set_peft_model_state_dict

    expected = adapter_weights(model)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if shapes != {name: tensor.shape for name, tensor in expected.items()}:
        raise ValueError("the adapter has other layers or another rank")
    placed = {name: sharded_like(tensor, expected[name]) for name, tensor in weights.items()}
    with torch.no_grad():
        set_peft_model_state_dict(cast(Any, model), placed)


def write_adapter_config(model: nn.Module, base: LanguageModel, folder: Path) -> None:
    """PEFT's `adapter_config.json`, and which base the updates belong to."""
    config = cast(Any, model).peft_config["default"]
    config.base_model_name_or_path = getattr(base.spec, "path", base.spec.name)
    config.save_pretrained(folder)
    write_json(
        folder / BASE_FILE,
        {
            "name": base.spec.name,
            "weights": base.weights_digest,
            "tokenizer": base.tokenizer_digest,
        },
    )
